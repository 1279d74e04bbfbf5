/* Activations. */

#ifndef ANYTASK_ACTIVATION_H
#define ANYTASK_ACTIVATION_H

#include "vector.h"

/* x times the normal distribution's integral up to x, to 4e-6 or 1e-6 of x. Up to 4.8, where it is nearly 1, the
   integral is 0.5 + x p(x^2), by the p with the least largest error of the result. */
INLINE vector gelu(vector x) {
    x = larger(all(-4.8f), x); /* in this order NaN stays */
    const vector z = smaller(all(4.8f), x), u = z * z * (2 / 23.04f) - 1;
    vector p = u * -0.000645118591f + 0.00198762701f;
    p = p * u - 0.00279125222f;
    p = p * u + 0.00426166225f;
    p = p * u - 0.00851686578f;
    p = p * u + 0.0146706644f;
    p = p * u - 0.0218441375f;
    p = p * u + 0.0304916576f;
    p = p * u - 0.040607959f;
    p = p * u + 0.0529261902f;
    p = p * u - 0.0729784593f;
    p = p * u + 0.147212461f;
    return x * (z * p + 0.5f);
}

#endif
