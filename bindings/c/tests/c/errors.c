/*
 * Goes through every way in which a call can fail, and looks at what it leaves: errors FOLDER WEIGHTS SCRATCH
 *
 * FOLDER has 3 images at least, WEIGHTS are a small DINOv2's, SCRATCH is an empty folder. Compiled as C and as C++, with both kinds of
 * library, and run under valgrind and AddressSanitizer.
 */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <musc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int checks, faults;

static void fault(int line, const char *what) {
    fprintf(stderr, "errors.c:%d: %s\n", line, what);
    faults++;
}

/* A call has this status, and where that is an error its message has these words. */
static void expect(int line, musc_status found, musc_status expected, const char *words) {
    checks++;
    if (found != expected) {
        fprintf(stderr, "errors.c:%d: found \"%s\" (%s), expected \"%s\"\n", line, musc_status_name(found), musc_last_error(),
                musc_status_name(expected));
        faults++;
    } else if (found != MUSC_OK && strstr(musc_last_error(), words) == NULL) {
        fprintf(stderr, "errors.c:%d: \"%s\" does not say \"%s\"\n", line, musc_last_error(), words);
        faults++;
    }
}

#define OK(call) expect(__LINE__, call, MUSC_OK, "")
#define FAILS(call, status, words) expect(__LINE__, call, status, words)
#define BAD(call, words) expect(__LINE__, call, MUSC_BAD_ARGUMENT, words)
#define TRUE(what) (checks++, (what) ? (void)0 : fault(__LINE__, #what))

/* Bytes that a buffer is filled with, to see that nothing else is written. */
enum { MARK = 0xa5 };

static int marked(const void *memory, size_t bytes) {
    const unsigned char *at = (const unsigned char *)memory;
    while (bytes > 0 && *at == MARK) at++, bytes--;
    return bytes == 0;
}

/* A getter of `count` elements of `size` bytes: asked for the number, with too little room, with enough and more, without places. */
#define BUFFER(type, count, ...)                                                       \
    do {                                                                               \
        const size_t all_ = (count), bytes_ = (all_ + 4) * sizeof(type);               \
        type *memory_ = (type *)malloc(bytes_);                                        \
        size_t needed_ = 77;                                                           \
        OK(CALL(__VA_ARGS__, (type *)NULL, 0, &needed_));                              \
        TRUE(needed_ == all_ && all_ > 0 && memory_ != NULL);                          \
        memset(memory_, MARK, bytes_);                                                 \
        needed_ = 77;                                                                  \
        FAILS(CALL(__VA_ARGS__, memory_, all_ - 1, &needed_), MUSC_BUFFER_TOO_SMALL, "room for"); \
        TRUE(needed_ == all_ && marked(memory_, bytes_));                              \
        FAILS(CALL(__VA_ARGS__, memory_, 0, NULL), MUSC_BUFFER_TOO_SMALL, "expected"); \
        TRUE(marked(memory_, bytes_));                                                 \
        OK(CALL(__VA_ARGS__, memory_, all_ + 4, &needed_));                            \
        TRUE(!marked(memory_ + all_ - 1, sizeof(type)));                               \
        TRUE(marked(memory_ + all_, 4 * sizeof(type)));                                \
        OK(CALL(__VA_ARGS__, memory_, all_, NULL));                                    \
        BAD(CALL(__VA_ARGS__, (type *)NULL, 5, &needed_), "NULL");                     \
        BAD(CALL(__VA_ARGS__, (type *)NULL, 0, NULL), "NULL");                         \
        BAD(CALL(__VA_ARGS__, memory_, (size_t)-1, NULL), sizeof(type) > 1 ? "memory" : "elements"); \
        free(memory_);                                                                 \
    } while (0)
#define CALL(function, ...) function(__VA_ARGS__)

/* Threads of this process. */
static int threads(void) {
    int count = -2; /* "." and ".." */
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL) return 1;
    while (readdir(tasks) != NULL) count++;
    closedir(tasks);
    return count;
}

/* When all is freed the library's threads end, soon. */
static void wait_for_threads(int expected) {
    const struct timespec moment = {0, 10000000};
    int left = 1000;
    while (threads() > expected && left-- > 0) nanosleep(&moment, NULL);
    TRUE(threads() == expected);
}

static const char *NO_UTF8 = "photos/\xff\xfe";

static int stop_at_once(void *user_data, const char *stage, uint64_t done, uint64_t total) {
    (void)stage, (void)done, (void)total;
    ++*(int *)user_data;
    return 1;
}

static int count_steps(void *user_data, const char *stage, uint64_t done, uint64_t total) {
    int *steps = (int *)user_data;
    if (*stage == 0 || (total > 0 && done > total)) *steps = -1000000;
    ++*steps;
    return 0;
}

static void versions(void) {
    musc_options *options = (musc_options *)&checks;
    TRUE(musc_abi_version() == MUSC_ABI_VERSION);
    TRUE(strchr(musc_version(), '.') != NULL);
    TRUE(*musc_last_error() == 0);
    TRUE(strcmp(musc_status_name(MUSC_BUFFER_TOO_SMALL), "buffer too small") == 0);
    TRUE(strcmp(musc_status_name(-1), "unknown") == 0 && strcmp(musc_status_name(10), "unknown") == 0);
    FAILS(musc_options_new(MUSC_ABI_VERSION + 1, &options), MUSC_WRONG_ABI, "found 2, expected 1");
    TRUE(options == NULL);
    FAILS(musc_options_new(0, &options), MUSC_WRONG_ABI, "found 0");
    BAD(musc_options_new(MUSC_ABI_VERSION, NULL), "NULL");
    TRUE(musc_has_built_in_weights() == 0 || musc_has_built_in_weights() == 1);
    TRUE(musc_live_handles() == 0);
}

static void options_refuse(void) {
    static const size_t even[] = {2}, none[] = {0}, far[] = {99};
    musc_options *options = NULL, *freed = NULL;
    musc_inspector *inspector = (musc_inspector *)&checks;
    OK(musc_options_new(MUSC_ABI_VERSION, &options));
    BAD(musc_options_set_backbone(NULL, "dinov2_vits14"), "musc_options: found NULL");
    BAD(musc_options_set_backbone(options, NULL), "backbone: found NULL");
    BAD(musc_options_set_backbone(options, NO_UTF8), "a byte at 7 that is no UTF-8");
    BAD(musc_options_set_weights(options, NULL), "NULL");
    BAD(musc_options_set_weights(options, NO_UTF8), "UTF-8");
    BAD(musc_options_set_weights(options, ""), "empty");
    BAD(musc_options_set_pretrained(options, NULL), "NULL");
    BAD(musc_options_set_device(options, NULL), "NULL");
    BAD(musc_options_set_device(options, "abacus"), "abacus");
    BAD(musc_options_set_precision(options, NULL), "NULL");
    BAD(musc_options_set_precision(options, "f8"), "auto, f32, f16, bf16");
    OK(musc_options_set_device(options, "cpu"));
    OK(musc_options_set_precision(options, "f16"));
    BAD(musc_inspector_new(options, &inspector), "precision: found f16, expected f32, bf16 or auto");
    OK(musc_options_set_precision(options, "auto"));
    BAD(musc_options_set_cache(options, NULL, 1), "NULL");
    BAD(musc_options_set_keep_aspect(options, 70, 2), "found 2, expected 0 or 1");
    BAD(musc_options_set_tiles(options, 0, 1, 0), "found");
    BAD(musc_options_set_tiles(options, 2, 2, 7), "found 7");
    BAD(musc_options_set_layers(options, NULL, 3), "layers: found NULL");
    BAD(musc_options_set_degrees(options, NULL, 1), "degrees: found NULL");
    BAD(musc_options_set_degrees(options, (const size_t *)((const char *)even + 1), 1), "address");
    BAD(musc_options_set_degrees(options, even, (size_t)-1), "memory");
    BAD(musc_options_set_rescoring(options, NULL, 2), "k: found NULL");
    BAD(musc_options_set_threads(NULL, 1), "NULL");
    BAD(musc_options_set_memory_limit(NULL, 1), "NULL");
    BAD(musc_options_set_batch_size(NULL, 1), "NULL");
    BAD(musc_options_set_size(NULL, 1, 1), "NULL");
    BAD(musc_options_set_interval(NULL, 0, 1), "NULL");
    BAD(musc_options_set_radius(NULL, 1), "NULL");
    BAD(musc_options_set_references(NULL, 1, 1), "NULL");
    BAD(musc_inspector_new(NULL, &inspector), "NULL");
    BAD(musc_inspector_new(options, NULL), "NULL");

    /* What only shows when an inspector is made. */
    OK(musc_options_set_device(options, "cpu"));
    OK(musc_options_set_backbone(options, "ViT-X"));
    BAD(musc_inspector_new(options, &inspector), "ViT-X");
    TRUE(inspector == NULL);
    OK(musc_options_set_backbone(options, "dinov2_vits14"));
    OK(musc_options_set_weights(options, "/no/such/weights.safetensors"));
    FAILS(musc_inspector_new(options, &inspector), MUSC_NOT_FOUND, "/no/such/weights.safetensors");
    OK(musc_options_set_weights(options, "/dev/null"));
    FAILS(musc_inspector_new(options, &inspector), MUSC_BAD_FILE, "/dev/null");
    OK(musc_options_set_degrees(options, even, 1));
    BAD(musc_inspector_new(options, &inspector), "found 2");
    OK(musc_options_set_degrees(options, NULL, 0));
    BAD(musc_inspector_new(options, &inspector), "degrees");
    OK(musc_options_set_degrees(options, far, 1));
    OK(musc_options_set_interval(options, 0.5, 0.25));
    BAD(musc_inspector_new(options, &inspector), "interval");
    OK(musc_options_set_interval(options, 0, 0.3));
    OK(musc_options_set_rescoring(options, none, 1));
    BAD(musc_inspector_new(options, &inspector), "k");
    OK(musc_options_set_rescoring(options, NULL, 0));
    OK(musc_options_set_references(options, 1, 0));
    BAD(musc_inspector_new(options, &inspector), "references");
    OK(musc_options_set_device(options, "cuda:77"));
    OK(musc_options_set_references(options, 0, 0));
    FAILS(musc_inspector_new(options, &inspector), MUSC_DEVICE, "77");

    /* Freed, freed again, and used after that. */
    freed = options;
    OK(musc_options_free(options));
    BAD(musc_options_free(freed), "freed");
    BAD(musc_options_set_threads(freed, 1), "freed");
    BAD(musc_inspector_new(freed, &inspector), "freed");
    BAD(musc_options_free((musc_options *)&checks), "never given");
    OK(musc_options_free(NULL));
    OK(musc_batch_free(NULL));
    OK(musc_inspector_free(NULL));
    OK(musc_inspection_free(NULL));
    OK(musc_bank_free(NULL));
    OK(musc_predictor_free(NULL));
}

static void batches_refuse(const char *folder, const char *scratch) {
    static unsigned char pixels[3 * 4 * 5];
    const char *paths[] = {"/no/such/image.png", NULL};
    musc_frame frame = {pixels, 5, 4, 0, NULL};
    musc_batch *batch = NULL;
    size_t count = 0;
    FAILS(musc_batch_folder("/no/such/folder", &batch), MUSC_NOT_FOUND, "/no/such/folder");
    FAILS(musc_batch_folder(scratch, &batch), MUSC_BAD_FILE, scratch);
    BAD(musc_batch_folder(NULL, &batch), "folder: found NULL");
    BAD(musc_batch_folder(NO_UTF8, &batch), "UTF-8");
    BAD(musc_batch_folder("", &batch), "empty");
    BAD(musc_batch_folder(folder, NULL), "NULL");
    BAD(musc_batch_paths(NULL, 2, &batch), "paths: found NULL");
    BAD(musc_batch_paths(paths, 2, &batch), "path 1: found NULL");
    BAD(musc_batch_paths(paths, 0, &batch), "images");
    BAD(musc_batch_paths(&NO_UTF8, 1, &batch), "path 0");
    BAD(musc_batch_frames(NULL, 1, &batch), "NULL");
    BAD(musc_batch_frames(&frame, 0, &batch), "images");
    TRUE(batch == NULL);
    frame.stride = 11;
    BAD(musc_batch_frames(&frame, 1, &batch), "frame 0: stride: found 11, expected at least 12");
    frame.stride = 0, frame.pixels = NULL;
    BAD(musc_batch_frames(&frame, 1, &batch), "frame 0: pixels: found NULL");
    frame.pixels = pixels, frame.width = 0;
    BAD(musc_batch_frames(&frame, 1, &batch), "5x0 pixels");
    frame.width = (size_t)-1 / 2;
    BAD(musc_batch_frames(&frame, 1, &batch), "memory");
    frame.width = 4, frame.stride = (size_t)-1 / 4;
    BAD(musc_batch_frames(&frame, 1, &batch), "frame 0");
    frame.stride = 0, frame.name = NO_UTF8;
    BAD(musc_batch_frames(&frame, 1, &batch), "frame 0: name");
    TRUE(batch == NULL);
    OK(musc_batch_paths(paths, 1, &batch));
    OK(musc_batch_count(batch, &count));
    TRUE(count == 1);
    BAD(musc_batch_count(batch, NULL), "count: found NULL");
    BAD(musc_batch_count(NULL, &count), "NULL");
    BAD(musc_batch_count((musc_batch *)(void *)paths, &count), "never given");
    BAD(musc_batch_set_skip_bad(batch, 3), "found 3");
    BAD(musc_batch_set_skip_bad(NULL, 1), "NULL");
    FAILS(musc_batch_set_region(batch, "/no/such/mask.png", 0), MUSC_NOT_FOUND, "/no/such/mask.png");
    BAD(musc_batch_set_region(batch, NO_UTF8, 0), "UTF-8");
    OK(musc_batch_set_region(batch, NULL, 1));
    OK(musc_batch_free(batch));
    BAD(musc_batch_free(batch), "freed");
}

static void inspections(const musc_inspector *inspector, const char *folder, const char *scratch) {
    const char *missing[] = {"/no/such/one.png", "/no/such/two.png"};
    char broken[4096];
    const char *bad[] = {broken, broken};
    musc_batch *batch = NULL, *other = NULL;
    musc_inspection *found = (musc_inspection *)&checks;
    musc_inspection *again = NULL;
    size_t count = 0, needed = 0, rows, columns, height, width, at;
    double threshold = 0, scores[64], thresholds[64];
    float raw[64], raw_again[64];
    uint8_t decisions[64];
    int steps = 0;
    FILE *file;

    OK(musc_batch_folder(folder, &batch));
    OK(musc_batch_count(batch, &count));
    BAD(musc_inspector_inspect(NULL, batch, NULL, NULL, &again), "NULL");
    BAD(musc_inspector_inspect(inspector, NULL, NULL, NULL, &again), "musc_batch: found NULL");
    BAD(musc_inspector_inspect(inspector, batch, NULL, NULL, NULL), "NULL");
    BAD(musc_inspector_inspect(inspector, (const musc_batch *)(const void *)inspector, NULL, NULL, &found), "another type");
    TRUE(found == NULL);
    FAILS(musc_inspector_inspect(inspector, batch, stop_at_once, &steps, &found), MUSC_INTERRUPTED, "interrupted");
    TRUE(found == NULL && steps == 1);

    OK(musc_batch_paths(missing, 2, &other));
    FAILS(musc_inspector_inspect(inspector, other, NULL, NULL, &found), MUSC_NOT_FOUND, "/no/such/two.png");
    OK(musc_batch_free(other));
    OK(musc_batch_paths(missing, 1, &other));
    BAD(musc_inspector_inspect(inspector, other, NULL, NULL, &found), "at least 2");
    OK(musc_batch_free(other));
    snprintf(broken, sizeof broken, "%s/broken.png", scratch);
    file = fopen(broken, "w");
    if (file == NULL) exit(2);
    fputs("\x89PNG no image", file);
    fclose(file);
    OK(musc_batch_paths(bad, 2, &other));
    FAILS(musc_inspector_inspect(inspector, other, NULL, NULL, &found), MUSC_BAD_FILE, "broken.png");
    OK(musc_batch_free(other));

    steps = 0;
    OK(musc_inspector_inspect(inspector, batch, count_steps, &steps, &found));
    TRUE(steps > (int)count);
    OK(musc_inspector_inspect(inspector, batch, NULL, NULL, &again));
    BUFFER(char, strlen("dinov2_tiny_weights") + 1, musc_inspector_backbone, inspector);
    OK(musc_inspector_device(inspector, NULL, 0, &needed));
    BUFFER(char, needed, musc_inspector_device, inspector);

    OK(musc_inspection_count(found, &needed));
    TRUE(needed == count && count >= 3 && count <= 64);
    OK(musc_inspection_grid(found, &rows, &columns));
    OK(musc_inspection_map_size(found, &height, &width));
    TRUE(rows == 5 && columns == 5 && height == 70 && width == 70);
    BUFFER(double, count, musc_inspection_scores, found);
    BUFFER(float, count, musc_inspection_raw_scores, found);
    BUFFER(size_t, count, musc_inspection_places, found);
    BUFFER(double, count, musc_inspection_thresholds, found, "gap");
    BUFFER(double, count, musc_inspection_thresholds, found, "mebin");
    BUFFER(uint8_t, count, musc_inspection_decisions, found, NULL);
    BUFFER(float, rows * columns, musc_inspection_patch_scores, found, count - 1);
    BUFFER(float, height * width, musc_inspection_map, found, 0, height, width);
    BUFFER(float, (size_t)21, musc_inspection_map, found, count - 1, 3, 7);
    OK(musc_inspection_name(found, 0, NULL, 0, &needed));
    BUFFER(char, needed, musc_inspection_name, found, 0);
    OK(musc_inspection_notes(found, NULL, 0, &needed));
    BUFFER(char, needed, musc_inspection_notes, found);
    OK(musc_inspection_class_token(found, 0, NULL, 0, &needed));
    BUFFER(float, needed, musc_inspection_class_token, found, 0);

    /* The same work has the same bits; the raw score is the map's largest value, and decides. */
    OK(musc_inspection_raw_scores(found, raw, 64, NULL));
    OK(musc_inspection_raw_scores(again, raw_again, 64, NULL));
    TRUE(memcmp(raw, raw_again, count * sizeof *raw) == 0);
    OK(musc_inspection_scores(found, scores, 64, NULL));
    OK(musc_inspection_threshold(found, "shortest-half:1", &threshold));
    OK(musc_inspection_thresholds(found, "shortest-half:1", thresholds, 64, NULL));
    OK(musc_inspection_decisions(found, "shortest-half:1", decisions, 64, NULL));
    for (at = 0; at < count; at++) {
        float *map = (float *)malloc(height * width * sizeof *map), largest = -1;
        size_t pixel;
        OK(musc_inspection_map(found, at, height, width, map, height * width, NULL));
        for (pixel = 0; pixel < height * width; pixel++) largest = map[pixel] > largest ? map[pixel] : largest;
        TRUE(largest == raw[at] && thresholds[at] == threshold);
        TRUE(decisions[at] == (raw[at] > threshold));
        free(map);
    }

    BAD(musc_inspection_patch_scores(found, count, raw, 64, NULL), "image: found");
    BAD(musc_inspection_patch_scores(found, (size_t)-1, raw, 64, NULL), "image: found");
    BAD(musc_inspection_class_token(found, count, raw, 64, NULL), "image: found");
    BAD(musc_inspection_name(found, count, NULL, 0, &needed), "image: found");
    BAD(musc_inspection_map(found, count, 3, 7, raw, 64, NULL), "image: found");
    BAD(musc_inspection_map(found, 0, 0, 7, raw, 64, NULL), "at least one pixel");
    BAD(musc_inspection_map(found, 0, (size_t)-1, 7, raw, 64, NULL), "memory");
    BAD(musc_inspection_threshold(found, "mebin", &threshold), "mebin");
    BAD(musc_inspection_threshold(found, "guess", &threshold), "guess");
    BAD(musc_inspection_threshold(found, NO_UTF8, &threshold), "UTF-8");
    BAD(musc_inspection_threshold(found, NULL, NULL), "threshold: found NULL");
    BAD(musc_inspection_thresholds(found, "guess", thresholds, 64, NULL), "guess");
    BAD(musc_inspection_decisions(found, "f1", decisions, 64, NULL), "labels");
    BAD(musc_inspection_count(found, NULL), "NULL");
    BAD(musc_inspection_grid(found, NULL, &columns), "rows: found NULL");
    BAD(musc_inspection_grid(found, &rows, NULL), "columns: found NULL");
    BAD(musc_inspection_map_size(found, &height, NULL), "width: found NULL");
    BAD(musc_inspection_count(NULL, &count), "NULL");
    OK(musc_inspection_free(again));
    BAD(musc_inspection_free(again), "freed");
    BAD(musc_inspection_scores(again, scores, 64, NULL), "freed");
    OK(musc_inspection_free(found));
    OK(musc_batch_free(batch));
}

static void skipped(const musc_inspector *inspector, const char *folder, const char *scratch) {
    char paths[4][4096], notes[4096];
    const char *given[] = {paths[0], paths[3], paths[1], paths[2]};
    size_t places[4], count = 0, at;
    musc_batch *batch = NULL;
    musc_inspection *found = NULL;
    OK(musc_batch_folder(folder, &batch));
    OK(musc_inspector_inspect(inspector, batch, NULL, NULL, &found));
    for (at = 0; at < 3; at++) OK(musc_inspection_name(found, at, paths[at], sizeof paths[at], NULL));
    snprintf(paths[3], sizeof paths[3], "%s/broken.png", scratch);
    OK(musc_inspection_free(found));
    OK(musc_batch_free(batch));
    OK(musc_batch_paths(given, 4, &batch));
    FAILS(musc_inspector_inspect(inspector, batch, NULL, NULL, &found), MUSC_BAD_FILE, "broken.png");
    OK(musc_batch_set_skip_bad(batch, 1));
    OK(musc_inspector_inspect(inspector, batch, NULL, NULL, &found));
    OK(musc_inspection_places(found, places, 4, &count));
    TRUE(count == 3 && places[0] == 0 && places[1] == 2 && places[2] == 3);
    OK(musc_inspection_notes(found, notes, sizeof notes, NULL));
    TRUE(strstr(notes, "broken.png: skipped: ") != NULL);
    OK(musc_inspection_free(found));
    OK(musc_batch_free(batch));
}

/* Frames with and without bytes between their rows are the same images. */
static void frames(const musc_inspector *inspector) {
    enum { IMAGES = 3, SIDE = 30, STRIDE = 101 };
    static unsigned char close[IMAGES][SIDE * SIDE * 3], wide[IMAGES][SIDE * STRIDE];
    musc_frame of_close[IMAGES], of_wide[IMAGES];
    musc_batch *batch = NULL;
    musc_inspection *found = NULL;
    float raw[2][IMAGES];
    char name[16];
    int at, row, column;
    for (at = 0; at < IMAGES; at++) {
        memset(wide[at], 255, sizeof wide[at]);
        for (row = 0; row < SIDE; row++) {
            for (column = 0; column < 3 * SIDE; column++) {
                unsigned char value = (unsigned char)(row * 7 + column * 5 + at * row * column);
                close[at][row * SIDE * 3 + column] = wide[at][row * STRIDE + column] = value;
            }
        }
        of_close[at].pixels = close[at], of_wide[at].pixels = wide[at];
        of_close[at].height = of_close[at].width = of_wide[at].height = of_wide[at].width = SIDE;
        of_close[at].stride = 0, of_wide[at].stride = STRIDE;
        of_close[at].name = at == 1 ? "camera" : NULL, of_wide[at].name = NULL;
    }
    OK(musc_batch_frames(of_close, IMAGES, &batch));
    OK(musc_inspector_inspect(inspector, batch, NULL, NULL, &found));
    OK(musc_inspection_raw_scores(found, raw[0], IMAGES, NULL));
    OK(musc_inspection_name(found, 1, name, sizeof name, NULL));
    TRUE(strcmp(name, "camera") == 0);
    OK(musc_inspection_name(found, 2, name, sizeof name, NULL));
    TRUE(strcmp(name, "image 2") == 0);
    OK(musc_inspection_free(found));
    OK(musc_batch_free(batch));
    OK(musc_batch_frames(of_wide, IMAGES, &batch));
    memset(wide, 0, sizeof wide); /* they were copied */
    OK(musc_inspector_inspect(inspector, batch, NULL, NULL, &found));
    OK(musc_inspection_raw_scores(found, raw[1], IMAGES, NULL));
    TRUE(memcmp(raw[0], raw[1], sizeof raw[0]) == 0);
    OK(musc_inspection_free(found));
    OK(musc_batch_free(batch));
}

#include "banks.inc.h"
