/*
 * Finds the defective images of a folder: inspect FOLDER [SIDE] [WEIGHTS]
 *
 * A line an image: score, raw score, OK or NG, and where in the image the highest value of the map lies, in shares of its sides.
 */
#include <musc.h>
#include <stdio.h>
#include <stdlib.h>

static void check(musc_status status) {
    if (status != MUSC_OK) {
        fprintf(stderr, "%s: %s\n", musc_status_name(status), musc_last_error());
        exit(1);
    }
}

static void *room(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (memory == NULL) exit(1);
    return memory;
}

static int show(void *user_data, const char *stage, uint64_t done, uint64_t total) {
    (void)user_data;
    if (done == total) fprintf(stderr, "%s: %lu\n", stage, (unsigned long)total);
    return 0; /* another number would stop it */
}

int main(int count, char **words) {
    musc_options *options = NULL;
    musc_batch *batch = NULL;
    musc_inspector *inspector = NULL;
    musc_inspection *found = NULL;
    size_t images, height, width, needed, side = count > 2 ? strtoul(words[2], NULL, 10) : 518;
    if (count < 2) {
        fprintf(stderr, "usage: inspect FOLDER [SIDE] [WEIGHTS]\n");
        return 2;
    }
    check(musc_batch_folder(words[1], &batch));
    check(musc_options_new(MUSC_ABI_VERSION, &options));
    check(musc_options_set_size(options, side, side));
    check(musc_options_set_device(options, "cpu"));
    if (count > 3) check(musc_options_set_weights(options, words[3]));
    check(musc_inspector_new(options, &inspector));
    check(musc_inspector_inspect(inspector, batch, show, NULL, &found));

    check(musc_inspection_count(found, &images));
    check(musc_inspection_map_size(found, &height, &width));
    double *scores = room(images, sizeof *scores);
    float *raw = room(images, sizeof *raw);
    uint8_t *defective = room(images, sizeof *defective);
    float *map = room(height * width, sizeof *map);
    check(musc_inspection_scores(found, scores, images, NULL));
    check(musc_inspection_raw_scores(found, raw, images, NULL));
    check(musc_inspection_decisions(found, NULL, defective, images, NULL));
    for (size_t image = 0; image < images; image++) {
        size_t highest = 0;
        check(musc_inspection_map(found, image, height, width, map, height * width, NULL));
        for (size_t at = 0; at < height * width; at++) {
            if (map[at] > map[highest]) highest = at;
        }
        check(musc_inspection_name(found, image, NULL, 0, &needed));
        char *name = room(needed, 1);
        check(musc_inspection_name(found, image, name, needed, NULL));
        printf("%.17g,%.9g,%s,%.3f,%.3f,%s\n", scores[image], raw[image], defective[image] ? "NG" : "OK",
               (double)(highest % width) / width, (double)(highest / width) / height, name);
        free(name);
    }
    free(scores), free(raw), free(defective), free(map);
    musc_inspection_free(found);
    musc_inspector_free(inspector);
    musc_options_free(options);
    musc_batch_free(batch);
    return musc_live_handles() == 0 ? 0 : 1;
}
