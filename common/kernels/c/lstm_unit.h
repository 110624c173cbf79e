/* The LSTM for one unit of one sequence in one step, without the products: lstm.c has the loops. */

#pragma once
#include "elementwise.h"

typedef struct {
    float c, h;
} lstm_state;

EITHER lstm_state lstm_forget_and_add(float f, float g, float i, float o, float c_prev)
{
    lstm_state next;
    next.c = f * c_prev + g * i;
    next.h = o * fast_tanh(next.c);
    return next;
}

typedef struct {
    float f, g, i, o; /* of the sums that the gates were computed from */
    float c_prev;
} lstm_gradient;

/* dh and dc: what reaches h and c of this step, but for what reaches c through h */
EITHER lstm_gradient lstm_back(float f, float g, float i, float o, float c_prev, float c, float dh,
                               float dc)
{
    lstm_gradient d;
    float tanh_c = fast_tanh(c);
    float dcu = dc + dh * o * (1.0f - tanh_c * tanh_c);
    d.f = dcu * c_prev * f * (1.0f - f);
    d.g = dcu * i * (1.0f - g * g);
    d.i = dcu * g * i * (1.0f - i);
    d.o = dh * tanh_c * o * (1.0f - o);
    d.c_prev = dcu * f;
    return d;
}
