/* The elementwise work of a window, one pass each, in float32.

   Every function stands beside the NumPy lines that it replaces (common/time_layers/output.py and
   lstm_steps.py) and is tested against them. The loops are plain; the compiler vectorizes them. */

#include <stdint.h>
#include <string.h>

/* exp(x) as 2^n * exp(r), |r| <= ln(2) / 2, exp(r) by a polynomial (Moshier, Cephes expf). Within
   2 units in the last place for -87 < x < 88, the value at the near end beyond; NaN stays NaN. */
static inline float fast_exp(float x)
{
    x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
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
    return p;
}

static inline float fast_sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

/* tanh(x) = 1 - 2 / (exp(2x) + 1), and near 0, where that cancels, its Taylor series */
static inline float fast_tanh(float x)
{
    float far = 1.0f - 2.0f / (fast_exp(2.0f * x) + 1.0f);
    float s = x * x;
    float near = x * (1.0f + s * (-1.0f / 3 + s * (2.0f / 15 + s * (-17.0f / 315))));
    return s < 0.04f ? near : far;
}

/* scores (rows, V) := exp(scores + b), sums (rows) of the result */
void exp_rows(float *scores, const float *b, float *sums, int64_t rows, int64_t V)
{
    for (int64_t row = 0; row < rows; row++) {
        float *s = scores + row * V;
        double sum = 0;
        for (int64_t begin = 0; begin < V; begin += 512) { /* short sums: little rounding */
            int64_t end = begin + 512 < V ? begin + 512 : V;
            float part[16] = {0};
            int64_t v = begin;
            for (; v + 16 <= end; v += 16)
                for (int k = 0; k < 16; k++) {
                    float e = fast_exp(s[v + k] + b[v + k]);
                    s[v + k] = e;
                    part[k] += e;
                }
            for (; v < end; v++) {
                s[v] = fast_exp(s[v] + b[v]);
                part[0] += s[v];
            }
            for (int k = 0; k < 16; k++) sum += part[k];
        }
        sums[row] = (float)sum;
    }
}

/* One step of an LSTM after its products. gates (N, 4H) holds x Wx + b and becomes f, g, i, o. */
void lstm_step(float *gates, const float *h_Wh, const float *c_prev, float *c, float *tanh_c,
               float *h, int64_t N, int64_t H)
{
    for (int64_t n = 0; n < N; n++) {
        float *restrict f = gates + n * 4 * H, *restrict g = f + H, *restrict i = g + H, *o = i + H;
        const float *restrict u = h_Wh + n * 4 * H;
        const float *restrict cp = c_prev + n * H;
        float *restrict cn = c + n * H, *restrict tc = tanh_c + n * H, *restrict hn = h + n * H;
        for (int64_t k = 0; k < H; k++) f[k] = fast_sigmoid(f[k] + u[k]);
        for (int64_t k = 0; k < H; k++) g[k] = fast_tanh(g[k] + u[H + k]);
        for (int64_t k = 0; k < 2 * H; k++) i[k] = fast_sigmoid(i[k] + u[2 * H + k]); /* i, o */
        for (int64_t k = 0; k < H; k++) cn[k] = f[k] * cp[k] + g[k] * i[k];
        for (int64_t k = 0; k < H; k++) {
            tc[k] = fast_tanh(cn[k]);
            hn[k] = o[k] * tc[k];
        }
    }
}

/* The same step backwards. dc (N, H) comes in as dc_next and goes out as dc_prev; dA (N, 4H). */
void lstm_step_back(const float *gates, const float *c_prev, const float *tanh_c,
                    const float *dh_out, const float *dh_next, float *dc, float *dA, int64_t N,
                    int64_t H)
{
    for (int64_t n = 0; n < N; n++) {
        const float *f = gates + n * 4 * H, *g = f + H, *i = g + H, *o = i + H;
        const float *cp = c_prev + n * H, *tc = tanh_c + n * H;
        const float *up = dh_out + n * H, *later = dh_next + n * H;
        float *restrict d = dA + n * 4 * H, *restrict dcn = dc + n * H;
        for (int64_t k = 0; k < H; k++) {
            float dh = up[k] + later[k];
            float dck = dcn[k] + dh * o[k] * (1.0f - tc[k] * tc[k]);
            d[k] = dck * cp[k] * f[k] * (1.0f - f[k]);
            d[H + k] = dck * i[k] * (1.0f - g[k] * g[k]);
            d[2 * H + k] = dck * g[k] * i[k] * (1.0f - i[k]);
            d[3 * H + k] = dh * tc[k] * o[k] * (1.0f - o[k]);
            dcn[k] = dck * f[k];
        }
    }
}
