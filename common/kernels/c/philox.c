/* Philox4x32-10, Salmon et al. (2011): random words as a function of a counter and a key, and the masks
   that are made of them (common/kernels/philox.py).

   The naive loop, for block b of a stream; high and low are the halves of a product of 64 bits:

       x0 = b, x1 = stream, x2 = iteration, x3 = layer;
       k0 = low(seed), k1 = high(seed);
       for (round = 0; round < 10; round++) {
           p0 = 0xD2511F53 * x0, p1 = 0xCD9E8D57 * x2;
           x0 = high(p1) ^ x1 ^ k0, x1 = low(p1);
           x2 = high(p0) ^ x3 ^ k1, x3 = low(p0);
           k0 += 0x9E3779B9, k1 += 0xBB67AE85;
       }
       words[4 * b ...] = x0, x1, x2, x3;

   And the masks; a draw is 8 or 16 bits of the words of stream n, from the lowest bits on:

       for (n = 0; n < N; n++)
           for (t = 0; t < T; t++)
               for (d = 0; d < D; d++) kept[n][t][d] = draw(n, t * D + d) >= threshold;

   No word depends on another, so LANES blocks go through a round side by side, and each thread
   computes other elements. */

#include "philox_round.h"
#include "threads.h"

enum { LANES = 64 };                      /* blocks side by side, for vector code */
enum { CHUNK = 256, BYTES = CHUNK * 16 }; /* blocks that one thread takes at a time; their bytes */
_Static_assert(CHUNK % LANES == 0, "lanes that are not asked for need room too");

typedef struct {
    uint64_t seed;
    uint32_t layer, iteration;
} source;

/* words[4 * i ...] of the blocks first + i of a stream, for i < LANES */
static void lanes(const source *s, uint32_t stream, uint32_t first, uint32_t *restrict words)
{
    uint32_t x0[LANES], x1[LANES], x2[LANES], x3[LANES];
    uint32_t k0 = (uint32_t)s->seed, k1 = (uint32_t)(s->seed >> 32);
    for (int i = 0; i < LANES; i++) {
        x0[i] = first + (uint32_t)i;
        x1[i] = stream;
        x2[i] = s->iteration;
        x3[i] = s->layer;
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < LANES; i++) philox_round(&x0[i], &x1[i], &x2[i], &x3[i], k0, k1);
        philox_next_key(&k0, &k1);
    }
    for (int i = 0; i < LANES; i++) {
        words[4 * i] = x0[i];
        words[4 * i + 1] = x1[i];
        words[4 * i + 2] = x2[i];
        words[4 * i + 3] = x3[i];
    }
}

/* words (blocks, 4): those of a stream from its block `first` on */
void philox_words(uint32_t *words, int64_t seed, int64_t layer, int64_t iteration, int64_t stream,
                  int64_t first, int64_t blocks)
{
    const source s = {(uint64_t)seed, (uint32_t)layer, (uint32_t)iteration};
    uint32_t own[4 * LANES];
    for (int64_t b = 0; b < blocks; b += LANES) {
        lanes(&s, (uint32_t)stream, (uint32_t)(first + b), own);
        memcpy(words + 4 * b, own, (size_t)min(LANES, blocks - b) * 16);
    }
}

typedef struct {
    source from;
    uint8_t *kept;
    uint32_t stream;
    int64_t N, T, D, to_stream, to_row;
    int threshold, bytes; /* of a draw */
} args;

/* What is drawn for the elements begin .. end of stream n, at most a chunk. */
static void keep(const args *o, int64_t n, int64_t begin, int64_t end)
{
    uint32_t words[BYTES / 4];
    const uint8_t *draws = (const uint8_t *)words;
    const int64_t first = begin * o->bytes / 16, blocks = ((end - begin) * o->bytes + 15) / 16;
    for (int64_t b = 0; b < blocks; b += LANES)
        lanes(&o->from, o->stream + (uint32_t)n, (uint32_t)(first + b), words + 4 * b);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ /* the lowest bits of a word are the first draw */
    for (int64_t w = 0; w < 4 * blocks; w++)
        words[w] = o->bytes == 1 ? __builtin_bswap32(words[w]) : words[w] << 16 | words[w] >> 16;
#endif
    for (int64_t at = begin, stop; at < end; at = stop) { /* row by row */
        const int64_t t = at / o->D;
        stop = min((t + 1) * o->D, end);
        uint8_t *restrict kept = o->kept + n * o->to_stream + t * o->to_row + at - t * o->D;
        if (o->bytes == 1) {
            const uint8_t *draw = draws + (at - begin), threshold = (uint8_t)o->threshold;
            for (int64_t i = 0; i < stop - at; i++) kept[i] = draw[i] >= threshold;
        } else {
            const uint8_t *draw = draws + 2 * (at - begin);
            for (int64_t i = 0; i < stop - at; i++) {
                uint16_t own;
                memcpy(&own, draw + 2 * i, 2);
                kept[i] = own >= (uint16_t)o->threshold;
            }
        }
    }
}

static void keep_part(team *t, int index)
{
    const args *o = t->args;
    const int64_t elements = BYTES / o->bytes, length = o->T * o->D;
    const int64_t chunks = (length + elements - 1) / elements;
    for (int64_t part; (part = take(t)) < o->N * chunks;) {
        const int64_t begin = part % chunks * elements;
        keep(o, part / chunks, begin, min(begin + elements, length));
    }
}

/* kept[n * to_stream + t * to_row + d] = draw >= threshold, with a draw of 8 * bytes bits for each
   element (t, d) of the streams stream + n, n < N, row by row. */
void philox_keep(uint8_t *kept, int64_t to_stream, int64_t to_row, int64_t seed, int64_t layer,
                 int64_t iteration, int64_t stream, int64_t N, int64_t T, int64_t D,
                 int64_t threshold, int64_t bytes, int64_t threads)
{
    const args a = {
        .from = {(uint64_t)seed, (uint32_t)layer, (uint32_t)iteration},
        .kept = kept, .stream = (uint32_t)stream,
        .N = N, .T = T, .D = D, .to_stream = to_stream, .to_row = to_row,
        .threshold = (int)threshold, .bytes = (int)bytes,
    };
    run(keep_part, &a, threads);
}
