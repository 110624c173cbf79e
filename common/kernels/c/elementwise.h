/* exp, sigmoid and tanh in float32, without branches so that the compiler vectorizes loops over
   them. */

#pragma once
#include "either.h"

/* exp(x) = 2^n * exp(r) with |r| <= ln(2) / 2, and exp(r) by a polynomial (Moshier, Cephes expf).
   Accurate to 2 units in the last place for -87 < x < 88; x is clamped to that range. NaN stays
   NaN. */
EITHER float fast_exp(float given)
{
    float x = given < -87.0f ? -87.0f : given;
    x = x > 88.0f ? 88.0f : x;
    float n = x * 1.44269504f + 12582912.0f; /* the sum rounds to an integer in its low bits */
    uint32_t bits;
    memcpy(&bits, &n, 4);
    n -= 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t result;
    memcpy(&result, &p, 4);
    result += bits << 23; /* adds n to the exponent */
    memcpy(&p, &result, 4);
    return given == given ? p : given;
}

EITHER float fast_sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

/* tanh(x) = 1 - 2 / (exp(2x) + 1); near 0, where that loses digits, the Taylor series */
EITHER float fast_tanh(float x)
{
    float far = 1.0f - 2.0f / (fast_exp(2.0f * x) + 1.0f);
    float s = x * x;
    float near = x * (1.0f + s * (-1.0f / 3 + s * (2.0f / 15 + s * (-17.0f / 315))));
    return s < 0.04f ? near : far;
}
