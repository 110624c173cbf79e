/* One round of Philox4x32 for one block: x is its counter, k0 and k1 the key of the round (philox.c).
   */

#pragma once
#include "either.h"

enum { ROUNDS = 10 };

EITHER void philox_round(uint32_t *x0, uint32_t *x1, uint32_t *x2, uint32_t *x3, uint32_t k0,
                         uint32_t k1)
{
    uint64_t p0 = (uint64_t)0xD2511F53u * *x0, p1 = (uint64_t)0xCD9E8D57u * *x2;
    *x0 = (uint32_t)(p1 >> 32) ^ *x1 ^ k0;
    *x1 = (uint32_t)p1;
    *x2 = (uint32_t)(p0 >> 32) ^ *x3 ^ k1;
    *x3 = (uint32_t)p0;
}

/* From the key of a round to that of the next. */
EITHER void philox_next_key(uint32_t *k0, uint32_t *k1)
{
    *k0 += 0x9E3779B9u;
    *k1 += 0xBB67AE85u;
}
