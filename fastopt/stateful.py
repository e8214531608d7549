"""What an optimizer needs to go on elsewhere: its state, as dicts, in files and in pickles."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastopt import checkpoint, files
from fastopt.engine.device import wait
from fastopt.group import Group
from fastopt.grouped import Grouped
from fastopt.overrides import OPTIONS


class Stateful(Grouped):
    """An optimizer's state, and how it is taken out and put back."""

    @property
    def state(self) -> list[dict[str, Any]]:
        """The state of each group: by name, a tree in the structure of the parameters.

        The arrays are views. Of state that is stored in fewer bytes (``state_dtype``) they are float32
        copies, and read-only, so that nobody writes to them in vain. On a CUDA device they are there.
        """
        with self._on_stream():
            self._take_notes()
            self._settle()
            return [group.state() for group in self._groups]

    @property
    def nbytes(self) -> int:
        """How many bytes the state takes, as it is stored; the parameters and gradients not counted.

        Examples
        --------
        >>> import numpy as np, fastopt
        >>> w = np.zeros(10_000, np.float32)
        >>> [fastopt.Adam(w, state_dtype=form).nbytes for form in ("float32", "bfloat16", "float8")]
        [80000, 40000, 20320]
        """
        self._take_notes()
        self._turn.wait()
        return sum(group.nbytes for group in self._groups)

    def state_dict(self, params: bool = False) -> dict[str, Any]:
        """Return what the optimizer needs to go on: the step counts, the state, the hyperparameters.

        The arrays are copies, and NumPy's, wherever those of the optimizer are. Schedules are functions and
        are left out, but for the state of those that have some: those with ``state_dict()`` and
        ``load_state_dict()``.

        Parameters
        ----------
        params : bool
            Whether to put in copies of the parameters too.

        Returns
        -------
        dict
            Of numbers, strings, arrays, None, and dicts, lists and tuples of these:

            - "version", 2; "algorithm", the name of the class; "step_count".
            - "param_groups": for each group a dict of its "hyperparameters" and the state of its
              "schedules", by name, and of lists with an item for each array: "names", "shapes", "dtypes";
              "steps", how often it was updated; "own_schedules", the state of schedules that are its alone;
              "params" if they were asked for; and in "state" such a list for each name.
            - "options": the state of the optimizer's options.

            State that is stored in fewer bytes (``state_dtype``) stays as it is stored. In the place of its
            array is a dict: "format", the name of the form, "order", of the elements, and "stored", the bits.

        Raises
        ------
        RuntimeError
            Inside ``averaged_parameters()``.

        Examples
        --------
        >>> import numpy as np, fastopt
        >>> opt = fastopt.SGD({"w": np.ones(2), "b": np.ones(1)}, momentum=0.9)
        >>> opt.step({"w": np.ones(2), "b": None})
        >>> (group,) = opt.state_dict()["param_groups"]
        >>> group["names"], group["steps"]
        (["['w']", "['b']"], [1, 0])
        >>> group["state"]["momentum_buffer"]
        [array([1., 1.]), array([0.])]
        """
        self._require_parameters("state_dict() cannot be called")
        with self._on_stream():
            self._take_notes()
            self._settle()
            name, options = type(self).__name__, self._options_state()
            return checkpoint.collect(name, self._count - self._skipped, self._groups, options, params)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned, for parameters of the same names, shapes and dtypes.

        Parameters are known by their names, the keys of their dicts, in whatever order they come; in
        lists, by their place. Groups may come in another order too, but a parameter stays with its group.
        If the dict holds parameters, the optimizer's own are set to them, in place.

        Where this optimizer has a schedule, it keeps it, and gives it the state that was saved for it. It
        also keeps its ``state_dtype``: state that was stored otherwise is converted, rounded to nearest.

        Parameters
        ----------
        state_dict : dict
            From an optimizer of the same class, whether its arrays were on a CUDA device or not. Its arrays
            are copied.

        Raises
        ------
        TypeError, ValueError
            If it does not fit this optimizer; the message says in what. Nothing is changed then.
        RuntimeError
            Inside ``averaged_parameters()``.

        Examples
        --------
        >>> import numpy as np, fastopt
        >>> one = fastopt.SGD({"w": np.ones(2), "b": np.ones(1)}, lr=0.5, momentum=0.9)
        >>> one.step({"w": np.full(2, 4.0), "b": np.ones(1)})
        >>> params = {"b": np.zeros(1), "w": np.zeros(2)}
        >>> other = fastopt.SGD(params, momentum=0.9)
        >>> other.load_state_dict(one.state_dict(params=True))
        >>> other.param_groups[0]["lr"], params
        (0.5, {'b': array([0.5]), 'w': array([-1., -1.])})
        """
        self._require_parameters("load_state_dict() cannot be called")
        fitted = checkpoint.fit(state_dict, type(self).__name__, self._groups)
        for group, (place, part) in zip(self._groups, fitted.items(), strict=True):
            layouts = self._layouts(group, checkpoint.loadable(group, part))
            checkpoint.check(group, part, layouts, place)
        parts = list(fitted.values())
        self._check_options_state(state_dict["options"])
        checkpoint.load_schedules(self._groups, parts)
        with self._on_stream():
            self._rearrange()
            for group, part in zip(self._groups, parts, strict=True):
                group.mapping.update(checkpoint.loadable(group, part))
                self._take_note(group)
                for i, leaf in enumerate(group.leaves):
                    leaf.step = int(part["steps"][i])
                    for name in leaf.state_names:
                        leaf.load(name, part["state"][name][i])
                    if "params" in part and leaf.array.flags.writeable:
                        leaf.load_params(part["params"][i])
            self._count = int(state_dict["step_count"])
            self._load_options_state(state_dict["options"])
        if self._on_device:
            wait()  # steps may be taken on other streams

    def save(self, path: str | os.PathLike[str], *, params: bool = True) -> None:
        """Write :meth:`state_dict` to a file, whole or not at all.

        The file is written beside the one that it replaces, flushed to the disk and renamed. Whenever the
        process is killed, ``path`` is the old file or the new one. A symbolic link stays, and so do the
        permissions of a file that is replaced.

        Parameters
        ----------
        path : path
            The file. If its name ends in ``.safetensors`` it becomes one of those, which needs the
            package of that name: ``pip install "fastopt[safetensors]"``. With any other name, such as
            ``run.npz``, it is a ``.npz`` of NumPy's.
        params : bool
            Whether to put in the parameters too.

        Raises
        ------
        ValueError
            If there is a directory or a device at the path.
        OSError
            If it cannot be written. The old file is still there then.
        TypeError
            If a schedule has state that is not made of numbers, strings, arrays, dicts and lists.
        RuntimeError
            Inside ``averaged_parameters()``.

        See Also
        --------
        fastopt.load : Reads it, for :meth:`load_state_dict`. There is an example.
        """
        self._require_parameters("save() cannot be called")
        files.save(path, self.state_dict(params=params))

    def _require_parameters(self, what: str) -> None:
        """Wait for a step that is under way; raise an error if the arrays do not hold the parameters."""
        self._turn.wait()

    def _layouts(self, group: Group, values: Mapping[str, Any]) -> list[checkpoint.Layout]:
        """Return the state that each leaf of a group has when its hyperparameters are set to ``values``."""
        return [
            {} if leaf.frozen else leaf.layout(self._rule_of(leaf.group.with_values(values), leaf.shape))
            for leaf in group.leaves
        ]

    def _options_state(self) -> dict[str, Any]:
        """Return what the options of the optimizer hold, as plain numbers and arrays."""
        return {}

    def _check_options_state(self, saved: Any) -> None:
        """Raise a ValueError unless :meth:`_load_options_state` can take what was saved."""

    def _load_options_state(self, saved: Any) -> None:
        """Take over what :meth:`_options_state` returned."""

    def __getstate__(self) -> dict[str, Any]:
        self._require_parameters(f"{type(self).__name__} cannot be copied")
        functions: dict[str, Any] = dict.fromkeys(OPTIONS)  # what may be some: they are not pickled
        return {
            "params": [group.mapping["params"] for group in self._groups],
            "hyperparameters": [
                {name: value for name, value in group.mapping.items() if name != "params"}
                for group in self._groups
            ],
            "defaults": self._chosen_defaults,
            "sole": self._sole,
            "options": replace(self._options, **functions),
            "overrides": self._overrides,
            "own": [group.own for group in self._groups],
            "saved": self.state_dict(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        # The addresses in the tables are those of another process, or of other arrays.
        self._begin(state["defaults"], state["options"], state["sole"])
        self._overrides = state["overrides"]
        for params, values, own in zip(state["params"], state["hyperparameters"], state["own"], strict=True):
            self._join(self._new(params, values), own)
        self.load_state_dict(state["saved"])
