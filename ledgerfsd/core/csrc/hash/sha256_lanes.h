/* The compression function for LANES messages at once, in GCC's vector extensions; included by sha256_multi.c once for each
 * instruction set. Wants LANES (8 or 16), TARGET (the instruction set) and NAME (of the function); undefines them. */

typedef uint32_t VEC(LANES) __attribute__((vector_size(4 * LANES), aligned(4 * LANES), may_alias));

__attribute__((target(TARGET))) static void NAME(uint32_t *state, const uint8_t *const *data, size_t blocks) {
    typedef VEC(LANES) vec;
    vec *memory = (vec *)state, s[8];
    for (int i = 0; i < 8; i++) s[i] = memory[i];

    for (size_t block = 0; block < blocks; block++) {
        vec w[16]; /* the last 16 words of the message schedule; a vector holds the same word of every message */
        for (int half = 0; half < 16 / LANES; half++) {
            vec row[LANES], mixed[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) {
                memcpy(&row[i], data[i] + 64 * block + 4 * LANES * half, sizeof(vec));
                row[i] = (ROTATE_LEFT(row[i], 8) & 0x00FF00FF) | (ROTATE_LEFT(row[i], 24) & 0xFF00FF00);
            }
            /* riffling the two halves of the rows log2(LANES) times transposes them */
#pragma GCC unroll 4
            for (int shuffles = 1; shuffles < LANES; shuffles *= 2) {
#pragma GCC unroll 16
                for (int i = 0; i < LANES / 2; i++) {
                    mixed[2 * i] = LOWER_HALVES(LANES, row[i], row[i + LANES / 2]);
                    mixed[2 * i + 1] = UPPER_HALVES(LANES, row[i], row[i + LANES / 2]);
                }
                memcpy(row, mixed, sizeof row);
            }
            memcpy(w + LANES * half, row, sizeof row);
        }
        vec a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
        for (int from = 0; from < 64; from += 16) {
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) {
                if (from) {
                    vec w1 = w[(i + 1) & 15], w14 = w[(i + 14) & 15];
                    vec s0 = ROTATE_LEFT(w1, 25) ^ ROTATE_LEFT(w1, 14) ^ (w1 >> 3);
                    vec s1 = ROTATE_LEFT(w14, 15) ^ ROTATE_LEFT(w14, 13) ^ (w14 >> 10);
                    w[i] += s0 + w[(i + 9) & 15] + s1;
                }
                vec t1 = h + (ROTATE_LEFT(e, 26) ^ ROTATE_LEFT(e, 21) ^ ROTATE_LEFT(e, 7)) + (g ^ (e & (f ^ g))) +
                         LFS_SHA256_K[from + i] + w[i];
                vec t2 = (ROTATE_LEFT(a, 30) ^ ROTATE_LEFT(a, 19) ^ ROTATE_LEFT(a, 10)) + ((a & b) | (c & (a | b)));
                h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
            }
        }
        s[0] += a, s[1] += b, s[2] += c, s[3] += d, s[4] += e, s[5] += f, s[6] += g, s[7] += h;
    }
    for (int i = 0; i < 8; i++) memory[i] = s[i];
}

#undef LANES
#undef TARGET
#undef NAME
