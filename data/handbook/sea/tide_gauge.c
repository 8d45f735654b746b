/*
 * tide_gauge.c: the logger in the stilling well at the north pier.
 *
 * A float in a vertical pipe turns a wheel with 256 teeth. A reed counter adds or takes away
 * one pulse for each tooth, that is, for each 3.90625 millimetres of sea level. The logger samples
 * the counter once a second, averages over six minutes and writes one line to the memory card.
 *
 * Why six minutes: shorter means still show the wash of the Gannet when she backs off the quay;
 * longer ones hide the seiche in the harbour, which has a period of about nineteen minutes and
 * which the pilots want to see.
 *
 * Zero of the gauge is chart datum, 3.412 metres below the brass bolt on the pier (bolt 7).
 * The bolt was levelled again in 2018. If the pipe is ever moved, level it anew and
 * change DATUM_MM below; do not "correct" old files.
 */
#include <stdint.h>
#include <stdio.h>

#define MM_PER_TOOTH 3.90625
#define DATUM_MM 3412.0
#define SAMPLES 360          /* one a second for six minutes */
/* The sea has never moved faster in one second. A crab in the pipe has. */
#define MAX_STEP_MM 80.0

/* One accepted mean, as it is printed on the card. */
struct mean {
    double level_mm;         /* above chart datum */
    unsigned used;           /* samples that went into it */
    unsigned refused;        /* samples thrown away as impossible */
};

/*
 * Reduce one window of raw counts.
 *
 * A sample that jumps by more than MAX_STEP_MM from its accepted neighbour is refused and
 * counted, never repaired. When more than a third of the window has been refused, the whole mean
 * is marked bad by setting used to zero, and the line on the card says "----". In practice that
 * means barnacles on the wheel: scrub it with vinegar and a toothbrush.
 */
static struct mean reduce(const int32_t counts[SAMPLES])
{
    struct mean out = {0.0, 0, 0};
    double last = counts[0] * MM_PER_TOOTH;
    double sum = 0.0;

    for (int i = 0; i < SAMPLES; i++) {
        double here = counts[i] * MM_PER_TOOTH;
        double step = here - last;
        if (step > MAX_STEP_MM || step < -MAX_STEP_MM) {
            out.refused++;
            continue;
        }
        sum += here;
        last = here;
        out.used++;
    }
    if (out.refused * 3 > SAMPLES) {
        out.used = 0;
        return out;
    }
    out.level_mm = sum / out.used - DATUM_MM;
    return out;
}

/* Print a line: UTC in seconds, level in whole millimetres, refused samples. */
void write_line(FILE *card, int64_t utc, const int32_t counts[SAMPLES])
{
    struct mean m = reduce(counts);
    if (m.used == 0)
        fprintf(card, "%lld ---- %u\n", (long long)utc, m.refused);
    else
        fprintf(card, "%lld %.0f %u\n", (long long)utc, m.level_mm, m.refused);
    fflush(card);            /* the battery dies without warning about twice a year */
}
