/* The steps by hand: the speed that this machine allows. Each value is read once and written once.
   What depends on the step alone, such as the bias corrections, comes in as a scalar, as it does in fastopt;
   so does the factor that clips. With an average e, which is kept in the same pass, or NULL. */
#include <math.h>
#include <stddef.h>

/* Of a small step, the threads cost more than they bring. "if" without "parallel:" would turn off simd. */
#define ALL _Pragma("omp parallel for simd schedule(static) if (parallel: n > 50000)") \
    for (ptrdiff_t i = 0; i < n; i++)

#define STEP(BODY)                                       \
    const float rest = 1.0f - kept;                      \
    if (e)                                               \
        ALL {                                            \
            const float gi = factor * g[i];              \
            float pi = p[i];                             \
            BODY                                         \
            p[i] = pi;                                   \
            e[i] = kept * e[i] + rest * pi;              \
        }                                                \
    else                                                 \
        ALL {                                            \
            const float gi = factor * g[i];              \
            float pi = p[i];                             \
            BODY                                         \
            p[i] = pi;                                   \
        }

void adamw(ptrdiff_t n, float *restrict p, float *restrict g, float *restrict m, float *restrict v,
           float *restrict e, float factor, float kept, float step_size, float beta1, float beta2,
           float correction, float eps, float shrink)
{
    const float rest1 = 1.0f - beta1, rest2 = 1.0f - beta2;
    STEP(const float mi = beta1 * m[i] + rest1 * gi;
         const float vi = beta2 * v[i] + rest2 * gi * gi;
         m[i] = mi;
         v[i] = vi;
         pi = shrink * pi - step_size * mi / (sqrtf(vi) * correction + eps);)
}

void sgd(ptrdiff_t n, float *restrict p, float *restrict g, float *restrict b, float *restrict e, float factor,
         float kept, float lr, float momentum)
{
    STEP(const float bi = momentum * b[i] + gi;
         b[i] = bi;
         pi -= lr * bi;)
}

void adagrad(ptrdiff_t n, float *restrict p, float *restrict g, float *restrict s, float *restrict e,
             float factor, float kept, float lr, float eps)
{
    STEP(const float si = s[i] + gi * gi;
         s[i] = si;
         pi -= lr * gi / (sqrtf(si) + eps);)
}

void lion(ptrdiff_t n, float *restrict p, float *restrict g, float *restrict m, float *restrict e, float factor,
          float kept, float lr, float beta1, float beta2, float shrink)
{
    const float rest1 = 1.0f - beta1, rest2 = 1.0f - beta2;
    STEP(const float c = beta1 * m[i] + rest1 * gi;
         m[i] = beta2 * m[i] + rest2 * gi;
         pi = shrink * pi - lr * ((c > 0.0f) - (c < 0.0f));)
}

double sum_of_squares(ptrdiff_t n, const float *restrict g)
{
    double sum = 0.0;
    _Pragma("omp parallel for simd schedule(static) reduction(+: sum) if (parallel: n > 50000)")
    for (ptrdiff_t i = 0; i < n; i++)
        sum += (double)g[i] * g[i];
    return sum;
}
