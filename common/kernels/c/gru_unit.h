/* The GRU for one unit of one sequence in one step, without the products: gru.c has the loops. */

#pragma once
#include "elementwise.h"

/* n from x Wxn + bn */
EITHER float gru_candidate(float n, float r, float hn) { return fast_tanh(n + r * hn); }

EITHER float gru_mix(float z, float n, float h_prev) { return n + z * (h_prev - n); }

typedef struct {
    float r, z, n; /* of the sums that the gates were computed from */
    float hn;      /* of h_prev Whn + bhn */
    float h_prev;  /* but for what goes through Wh */
} gru_gradient;

EITHER gru_gradient gru_back(float r, float z, float n, float hn, float h_prev, float dh)
{
    gru_gradient d;
    d.n = dh * (1.0f - z) * (1.0f - n * n);
    d.r = d.n * hn * r * (1.0f - r);
    d.z = dh * (h_prev - n) * z * (1.0f - z);
    d.hn = d.n * r;
    d.h_prev = dh * z;
    return d;
}
