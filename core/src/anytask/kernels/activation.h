/* Activations, for loops over floats. */

#ifndef ANYTASK_ACTIVATION_H
#define ANYTASK_ACTIVATION_H

#include "vector.h"

/* 0.5 x (1 + erf(x / sqrt 2)), to 1e-5 or 1e-6 of x: erf(z) = z p(z^2) up to z = 3.5, a least-maximum fit, and as
   there from there on. */
INLINE float gelu(float x) {
    x = x < -8 ? -8 : x;
    float z = x * 0.707106781f;
    z = z > 3.5f ? 3.5f : z;
    z = z < -3.5f ? -3.5f : z;
    float u = z * z * (2 / 12.25f) - 1;
    float p = -0.00339882945f;
    p = p * u + 0.00862190991f;
    p = p * u - 0.00869871807f;
    p = p * u + 0.0127155799f;
    p = p * u - 0.0287086226f;
    p = p * u + 0.0470905838f;
    p = p * u - 0.0652849184f;
    p = p * u + 0.0879561499f;
    p = p * u - 0.114532452f;
    p = p * u + 0.146784955f;
    p = p * u - 0.200704476f;
    p = p * u + 0.403872549f;
    return 0.5f * x + 0.5f * x * z * p;
}

#endif
