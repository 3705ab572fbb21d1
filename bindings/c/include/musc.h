/*
 * musc: zero-shot industrial anomaly detection by mutual scoring.
 *
 * Give it a folder of unlabelled product images; it finds the defective ones, and where the defect is.
 *
 *     musc_options *options = NULL;
 *     musc_batch *batch = NULL;
 *     musc_inspector *inspector = NULL;
 *     musc_inspection *inspection = NULL;
 *     if (musc_options_new(MUSC_ABI_VERSION, &options) || musc_batch_folder("photos", &batch) ||
 *         musc_inspector_new(options, &inspector) ||
 *         musc_inspector_inspect(inspector, batch, NULL, NULL, &inspection)) {
 *         fprintf(stderr, "%s\n", musc_last_error());
 *     }
 *
 * Status. Every function that can fail returns a musc_status, which is 0 (MUSC_OK) when it did not; musc_last_error() has the words.
 *
 * Handles. What a function writes to its last argument is a handle, NULL on an error. It belongs to the caller, who frees it with
 * the function of its type, in any order. A handle that was freed, or is of another type, is MUSC_BAD_ARGUMENT; it is no address. NULL is
 * MUSC_BAD_ARGUMENT wherever a comment does not say otherwise.
 *
 * Buffers. `buffer`, `capacity`, `needed`: memory of the caller, its number of elements, and where the number of elements that there are
 * goes to, which may be NULL. With `buffer` NULL and `capacity` 0 only that number is told. A buffer that is too small is
 * MUSC_BUFFER_TOO_SMALL and left as it is; in one that is large enough, what is behind the last element is left as it is. Of strings the
 * elements are bytes, the 0 at the end among them.
 *
 * Strings are in UTF-8 and end with a 0; other bytes are MUSC_BAD_ARGUMENT. What is passed in may go when the call returns.
 *
 * Threads. Every function may be called from any thread, on the same handle too. A handle that is freed while another thread uses it goes
 * when that call ends.
 *
 * Nothing is printed, and no fault of the library ends the program, but for ordinary memory that the system refuses. After a fork() only
 * the parent may go on with what it has opened.
 *
 * Made by cbindgen from the sources of bindings/c: do not edit.
 */

#ifndef MUSC_H
#define MUSC_H

#include <stddef.h>
#include <stdint.h>

// The version of this header. It becomes another number when a program that was compiled with this one would no longer work;
// functions and status codes that are added leave it as it is.
#define MUSC_ABI_VERSION 1

// What a call came to. Everything but MUSC_OK is an error, and musc_last_error() says in words which one.
//
// More may be added: take one that you do not know for an error.
typedef enum {
    // Done.
    MUSC_OK = 0,
    // An argument or an option outside what is allowed: NULL, bytes that are no UTF-8, an image past the last, a handle that was
    // freed, a setting that does not fit the images.
    MUSC_BAD_ARGUMENT = 1,
    // A file or folder that is not there, or no weights of a backbone.
    MUSC_NOT_FOUND = 2,
    // A file that cannot be read, written or made sense of.
    MUSC_BAD_FILE = 3,
    // A device has too little memory left.
    MUSC_OUT_OF_MEMORY = 4,
    // A device that is not there, or that failed.
    MUSC_DEVICE = 5,
    // The progress function asked to stop.
    MUSC_INTERRUPTED = 6,
    // A buffer is too small for what should go into it. Nothing was written, and `needed` has the number of elements.
    MUSC_BUFFER_TOO_SMALL = 7,
    // The program was compiled with the header of another version than that of this library.
    MUSC_WRONG_ABI = 8,
    // A fault in this library. A handle that was in use meanwhile answers every later call with this, and is there to be freed.
    MUSC_INTERNAL = 9,
} musc_status;

// Known-good images with all that is needed to compare others with them: their tokens, the threshold, and the settings that they were
// made with. It does not change, and is independent of the inspector that it was made with.
typedef struct musc_bank musc_bank;

// Images that are scored together: a folder, files, or frames in memory. Files are opened when they are scored, and not before.
typedef struct musc_batch musc_batch;

// What a batch came to, image by image in the batch's order. It does not change: any number of threads may read it.
typedef struct musc_inspection musc_inspection;

// A device with a backbone on it, ready to inspect batches. May be used by many threads at once; each call has all threads of the
// inspector, so one after the other is as fast.
typedef struct musc_inspector musc_inspector;

// Options of an inspector. They have defaults; many inspectors can be made of the same ones, and they are still there afterwards.
typedef struct musc_options musc_options;

// A bank in use on an inspector's device. Many threads may ask it at once, and are answered one after the other.
typedef struct musc_predictor musc_predictor;

// An image in memory, 8 bits a channel.
typedef struct {
    // R, G, B of each pixel, row by row from the top. Copied: it may go when the call returns.
    const uint8_t *pixels;
    // Rows.
    size_t height;
    // Pixels in a row.
    size_t width;
    // Bytes from the start of a row to the start of the next, at least 3 * width; 0 is 3 * width.
    size_t stride;
    // What it goes by, in UTF-8; NULL is "image N", with its number in the batch.
    const char *name;
} musc_frame;

// Is told how a long call goes, and stops it by returning another number than 0: the call then ends with MUSC_INTERRUPTED. NULL
// watches nothing.
//
// `stage` is a word: "reading", "features", "scoring", "rescoring", "pictures", …; `done` of `total` steps of it are done, and a total
// of 0 is not known. A stage may come again. Besides, while a step takes long, it is called with the numbers that it had before.
//
// It is called from threads of this library, by one at a time, and must return: no exception, no longjmp. It may not use the handles
// that the call works with.
typedef int (*musc_progress)(void *user_data, const char *stage, uint64_t done, uint64_t total);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the ABI that this library has: compare with MUSC_ABI_VERSION. musc_options_new() does, too.
uint32_t musc_abi_version(void);

// The version of the library, such as "0.1.0". Static: it is not freed.
const char *musc_version(void);

// A status in words, such as "bad argument"; "unknown" for a number that is none. Static: it is not freed.
const char *musc_status_name(int32_t status);

// What was wrong in the last call on this thread that failed: what was attempted, what was found, what was expected, in UTF-8.
// Empty if none has failed; never NULL. Calls that succeed leave it as it is. Valid until the next call on this thread that fails, or
// the thread's end; it is not freed.
const char *musc_last_error(void);

// 1 when the default weights (DINOv2 ViT-S/14) are part of this library, 0 when it was built without them.
int32_t musc_has_built_in_weights(void);

// The number of handles of all kinds that are not freed yet: 0 at the end of a program that forgets none. Leak checkers see what is
// behind a forgotten handle as reachable, and say nothing of it.
size_t musc_live_handles(void);

// New options, all at their defaults. `abi_version` is MUSC_ABI_VERSION.
//
// `*options` is to be freed with musc_options_free().
//
// Errors: MUSC_WRONG_ABI.
musc_status musc_options_new(uint32_t abi_version, musc_options **options);

// Frees options; NULL is fine. Inspectors that were made with them stay.
musc_status musc_options_free(musc_options *options);

// The backbone by its name, such as "ViT-L-14-336" [default: "dinov2_vits14"]; with a weight file and no name it is whatever the file
// holds. Whether there is one of that name is seen when the inspector is made.
musc_status musc_options_set_backbone(musc_options *options,
                                      const char *name);

// The weights, a safetensors file [default: those inside this library for "dinov2_vits14", else
// `weights/NAME.safetensors` in the working folder or the cache of the Hugging Face Hub]. It is opened when the inspector is made.
musc_status musc_options_set_weights(musc_options *options,
                                     const char *file);

// The set that the weights were trained on, where a backbone has several [default: "openai"].
musc_status musc_options_set_pretrained(musc_options *options, const char *name);

// The device: "auto" (a card if there is one, else the processor), "cpu", "cuda", "cuda:0", "cuda:0,1" [default: "auto"].
musc_status musc_options_set_device(musc_options *options, const char *device);

// The number format of products: "auto" (a card's is f16; the processor's features f32, and their scoring bf16 where it has
// AVX512-BF16), "f32" (processors alone), "f16" (cards alone), or "bf16", features too [default: "auto"].
musc_status musc_options_set_precision(musc_options *options, const char *precision);

// The number of threads; 0 is one a core [default: 0]. It changes no number.
musc_status musc_options_set_threads(musc_options *options, size_t threads);

// The most bytes to take on each card; 0 is what is free [default: 0].
musc_status musc_options_set_memory_limit(musc_options *options, uint64_t bytes);

// The number of images that go through the backbone together; 0 leaves it to the device [default: 0]. It changes no number.
musc_status musc_options_set_batch_size(musc_options *options, size_t images);

// A folder in which tokens are kept, `bytes` at most, and taken from when the same images come again [default: none are kept].
musc_status musc_options_set_cache(musc_options *options, const char *folder, uint64_t bytes);

// Images are resized to this height and width in pixels, multiples of the backbone's patch size [default: 518 x 518]. With tiles it is
// the size of a tile.
musc_status musc_options_set_size(musc_options *options,
                                  size_t height,
                                  size_t width);

// In place of musc_options_set_size(): the images' proportions are kept, and the longer side gets `longest` pixels. With `pad` 1 images
// of other proportions than most are put on a larger canvas, whose empty part is not looked at; with 0 they are an error.
musc_status musc_options_set_keep_aspect(musc_options *options,
                                         size_t longest,
                                         int32_t pad);

// Images are cut into `rows` x `columns` tiles that overlap by a tenth; 1 x 1 cuts nothing [default: 1 x 1]. With `anywhere` 0 a tile is
// compared with the tiles at its own position, with 1 with all.
musc_status musc_options_set_tiles(musc_options *options,
                                   size_t rows,
                                   size_t columns,
                                   int32_t anywhere);

// The feature layers: `count` numbers of blocks, from 0 [default: the last block of each quarter of the depth].
musc_status musc_options_set_layers(musc_options *options, const size_t *layers, size_t count);

// The aggregation degrees: `count` odd numbers [default: 1, 3, 5].
musc_status musc_options_set_degrees(musc_options *options, const size_t *degrees, size_t count);

// The interval of the sorted distances whose mean is a patch's score, as shares of the images seen; 0 <= low < high <= 1
// [default: 0 to 0.3].
musc_status musc_options_set_interval(musc_options *options, double low, double high);

// A patch sees only patches within so many rows and columns of its own place, for parts that always lie alike; a negative number is
// anywhere [default: -1].
musc_status musc_options_set_radius(musc_options *options,
                                    int64_t radius);

// Scores are smoothed over images that are alike (RsCIN) with these `count` neighbourhood sizes, the image itself counted [default:
// 1, 2, 3]. With `count` 0 they are not: then the scores are the raw scores.
musc_status musc_options_set_rescoring(musc_options *options,
                                       const size_t *k,
                                       size_t count);

// Each image is compared with about so many others; 0 is with all [default: all up to 300 images, in subsets of about 200 above].
// `seed` deals out the subsets [default: 0].
musc_status musc_options_set_references(musc_options *options, size_t references, uint64_t seed);

// Every image of a folder and of its sub-folders, sorted by path.
//
// `*batch` is to be freed with musc_batch_free().
//
// Errors: MUSC_NOT_FOUND for no such folder, MUSC_BAD_FILE for one without an image.
musc_status musc_batch_folder(const char *folder, musc_batch **batch);

// These `count` files, in this order. Whether they are there is seen when they are scored.
//
// `*batch` is to be freed with musc_batch_free().
musc_status musc_batch_paths(const char *const *paths, size_t count, musc_batch **batch);

// These `count` frames, in this order. Their pixels are copied.
//
// `*batch` is to be freed with musc_batch_free().
musc_status musc_batch_frames(const musc_frame *frames, size_t count, musc_batch **batch);

// Frees a batch; NULL is fine. What was made of it stays.
musc_status musc_batch_free(musc_batch *batch);

// The number of images.
musc_status musc_batch_count(const musc_batch *batch, size_t *count);

// With `skip` 1 files that cannot be read are left out, see musc_inspection_places(); with 0 they are an error [default: 0].
musc_status musc_batch_set_skip_bad(musc_batch *batch, int32_t skip);

// Only a part of the images is looked at: what is white in `mask`, a picture for all images or a folder with one for each, and no
// closer than `border` pixels to an image's edge. `mask` may be NULL.
musc_status musc_batch_set_region(musc_batch *batch, const char *mask, size_t border);

// Opens the device, reads the weights and checks that all options fit together.
//
// `*inspector` is to be freed with musc_inspector_free(). The options may be freed or changed afterwards.
//
// Errors: MUSC_DEVICE, MUSC_OUT_OF_MEMORY, MUSC_NOT_FOUND and MUSC_BAD_FILE for weights, MUSC_BAD_ARGUMENT for an option by its name.
musc_status musc_inspector_new(const musc_options *options,
                               musc_inspector **inspector);

// Frees an inspector; NULL is fine. Inspections and banks stay, and a predictor keeps what it needs of it.
musc_status musc_inspector_free(musc_inspector *inspector);

// One line for people: the device and what it uses. A string as a buffer, with its 0.
musc_status musc_inspector_device(const musc_inspector *inspector, char *buffer, size_t capacity, size_t *needed);

// The name of the backbone. A string as a buffer, with its 0.
musc_status musc_inspector_backbone(const musc_inspector *inspector, char *buffer, size_t capacity, size_t *needed);

// Scores the images of a batch, two at least, against each other. `progress` may be NULL.
//
// `*inspection` is to be freed with musc_inspection_free().
//
// Errors: MUSC_NOT_FOUND and MUSC_BAD_FILE with every file that cannot be read; MUSC_BAD_ARGUMENT for fewer than two images, or an
// option that does not fit them; MUSC_INTERRUPTED; MUSC_OUT_OF_MEMORY and MUSC_DEVICE.
musc_status musc_inspector_inspect(const musc_inspector *inspector,
                                   const musc_batch *batch,
                                   musc_progress progress,
                                   void *user_data,
                                   musc_inspection **inspection);

// Frees an inspection; NULL is fine.
musc_status musc_inspection_free(musc_inspection *inspection);

// The number N of images that were scored: all of the batch, unless bad files were to be skipped.
musc_status musc_inspection_count(const musc_inspection *inspection, size_t *count);

// The places of the N images in their batch, rising: 0, 1, 2, … unless bad files were skipped.
musc_status musc_inspection_places(const musc_inspection *inspection, size_t *buffer, size_t capacity, size_t *needed);

// The name of an image: its path, or the frame's name. A string as a buffer, with its 0. What is no UTF-8 in a file's name is
// replaced by U+FFFD.
musc_status musc_inspection_name(const musc_inspection *inspection, size_t image, char *buffer, size_t capacity, size_t *needed);

// What a person should hear of, a line each: files that were skipped with why, images that are nearly the same, and the like. A string
// as a buffer, with its 0; empty when there is nothing.
musc_status musc_inspection_notes(const musc_inspection *inspection,
                                  char *buffer,
                                  size_t capacity,
                                  size_t *needed);

// The N scores after RsCIN; the raw scores where there was none.
musc_status musc_inspection_scores(const musc_inspection *inspection, double *buffer, size_t capacity, size_t *needed);

// The N raw scores: the largest value of each image's map at the size of musc_inspection_map_size().
musc_status musc_inspection_raw_scores(const musc_inspection *inspection, float *buffer, size_t capacity, size_t *needed);

// The grid of patches of an image, or of a tile. `rows` and `columns` are not NULL.
musc_status musc_inspection_grid(const musc_inspection *inspection, size_t *rows, size_t *columns);

// The patch scores of an image, rows * columns of musc_inspection_grid(), row by row; with tiles those of each tile, one tile behind
// the other, row by row.
musc_status musc_inspection_patch_scores(const musc_inspection *inspection,
                                         size_t image,
                                         float *buffer,
                                         size_t capacity,
                                         size_t *needed);

// The class token of an image, for musc_rscin().
musc_status musc_inspection_class_token(const musc_inspection *inspection,
                                        size_t image,
                                        float *buffer,
                                        size_t capacity,
                                        size_t *needed);

// The size of the maps that raw scores are the largest values of, in pixels: that at which images go through the backbone, or with
// tiles a larger one. `height` and `width` are not NULL.
musc_status musc_inspection_map_size(const musc_inspection *inspection,
                                     size_t *height,
                                     size_t *width);

// The anomaly map of an image at any size: height * width values, row by row from the top.
musc_status musc_inspection_map(const musc_inspection *inspection,
                                size_t image,
                                size_t height,
                                size_t width,
                                float *buffer,
                                size_t capacity,
                                size_t *needed);

// The one threshold of a decision rule: an image is defective when its raw score is above it. The rule is "gap[:SIGMAS]",
// "shortest-half[:SIGMAS]", "quantile:Q", "share:P" or a number; NULL is the threshold of the bank that the images were compared with,
// or "gap" where they were compared with each other.
//
// Errors: MUSC_BAD_ARGUMENT for "mebin", which has a threshold for each image: see musc_inspection_thresholds().
musc_status musc_inspection_threshold(const musc_inspection *inspection,
                                      const char *rule,
                                      double *threshold);

// The N thresholds of a decision rule, one an image: equal for the rules of musc_inspection_threshold(), and each map's own for
// "mebin".
musc_status musc_inspection_thresholds(const musc_inspection *inspection,
                                       const char *rule,
                                       double *buffer,
                                       size_t capacity,
                                       size_t *needed);

// The N decisions by musc_inspection_thresholds(): 1 for a defective image, 0 for a normal one.
musc_status musc_inspection_decisions(const musc_inspection *inspection,
                                      const char *rule,
                                      uint8_t *buffer,
                                      size_t capacity,
                                      size_t *needed);

// A bank of the images of a batch, two at least; an image that is there twice, by its pixels, is kept once. The rule for the threshold
// is as in musc_inspection_threshold(), and NULL is "gap"; `progress` may be NULL.
//
// `*bank` is to be freed with musc_bank_free().
//
// Errors: as musc_inspector_inspect(), and MUSC_BAD_ARGUMENT for an inspector with tiles and for the rule "mebin".
musc_status musc_bank_build(const musc_inspector *inspector,
                            const musc_batch *batch,
                            const char *rule,
                            musc_progress progress,
                            void *user_data,
                            musc_bank **bank);

// A new bank with the images of a batch besides, but for those that are in it already, by their pixels; the threshold is made anew. The
// inspector is one of the bank's settings.
//
// `*bigger` is to be freed with musc_bank_free(), as `bank` still is.
//
// Errors: as musc_bank_build(), and MUSC_BAD_ARGUMENT for an inspector of other settings.
musc_status musc_bank_add(const musc_inspector *inspector,
                          const musc_bank *bank,
                          const musc_batch *batch,
                          musc_progress progress,
                          void *user_data,
                          musc_bank **bigger);

// Reads a bank from a file.
//
// `*bank` is to be freed with musc_bank_free().
//
// Errors: MUSC_NOT_FOUND, and MUSC_BAD_FILE for a file that is no bank.
musc_status musc_bank_open(const char *file, musc_bank **bank);

// Writes a bank to a file, whole or not at all; one of that name is replaced, and folders that are missing are made.
//
// Errors: MUSC_BAD_FILE when it cannot be written.
musc_status musc_bank_save(const musc_bank *bank, const char *file);

// Frees a bank; NULL is fine. Predictors that were made with it stay.
musc_status musc_bank_free(musc_bank *bank);

// Options of an inspector that fits a bank. The device is to be chosen still, and the weights where they are not found by the
// backbone's name. `abi_version` is MUSC_ABI_VERSION.
//
// `*options` is to be freed with musc_options_free().
//
// Errors: MUSC_WRONG_ABI.
musc_status musc_bank_options(const musc_bank *bank, uint32_t abi_version, musc_options **options);

// The number M of references.
musc_status musc_bank_count(const musc_bank *bank, size_t *count);

// The threshold: an image whose raw score is above it is defective.
musc_status musc_bank_threshold(const musc_bank *bank, double *threshold);

// The M raw scores of the references among themselves.
musc_status musc_bank_raw_scores(const musc_bank *bank, float *buffer, size_t capacity, size_t *needed);

// The name of a reference: the path that it was read from, or the frame's name. A string as a buffer, with its 0.
musc_status musc_bank_name(const musc_bank *bank, size_t reference, char *buffer, size_t capacity, size_t *needed);

// What a bank is, as a JSON object: `references`, `backbone`, `weights_sha256`, `input` and `grid` ("HxW"), `layers`, `r_list`, `radius`,
// `rscin_k`, `decision`, `threshold`. Keys may be added. A string as a buffer, with its 0.
musc_status musc_bank_info(const musc_bank *bank,
                           char *buffer,
                           size_t capacity,
                           size_t *needed);

// Takes a bank to an inspector's device. The rule makes another threshold of the bank's raw scores, see musc_inspection_threshold();
// NULL leaves the bank's. With `keep` of 2 or more the bank slides: an image that is not defective takes the place of the oldest
// reference, and `keep` of them are kept; with 0 it stays as it is.
//
// `*predictor` is to be freed with musc_predictor_free(). Inspector and bank may be freed before.
//
// Errors: MUSC_BAD_ARGUMENT for an inspector of other settings than the bank's, with both; MUSC_OUT_OF_MEMORY and MUSC_DEVICE.
musc_status musc_predictor_new(const musc_inspector *inspector,
                               const musc_bank *bank,
                               const char *rule,
                               size_t keep,
                               musc_predictor **predictor);

// Frees a predictor; NULL is fine.
musc_status musc_predictor_free(musc_predictor *predictor);

// Compares the images of a batch, one at least, with the bank; with one that slides one after the other, each with the bank that those
// before it have left. Each image is decided by the bank's threshold (rule NULL). `progress` may be NULL.
//
// `*inspection` is to be freed with musc_inspection_free().
//
// Errors: as musc_inspector_inspect(), but one image is enough.
musc_status musc_predictor_predict(const musc_predictor *predictor,
                                   const musc_batch *batch,
                                   musc_progress progress,
                                   void *user_data,
                                   musc_inspection **inspection);

// As musc_predictor_predict(), for one file.
musc_status musc_predictor_path(const musc_predictor *predictor, const char *file, musc_inspection **inspection);

// As musc_predictor_predict(), for one frame. Its pixels are copied.
musc_status musc_predictor_frame(const musc_predictor *predictor, const musc_frame *frame, musc_inspection **inspection);

// The threshold: an image whose raw score is above it is defective. A bank that slides keeps it.
musc_status musc_predictor_threshold(const musc_predictor *predictor, double *threshold);

// The bank as it is now: with one that slides, to save what it has become.
//
// `*bank` is to be freed with musc_bank_free().
musc_status musc_predictor_bank(const musc_predictor *predictor, musc_bank **bank);

// Mutual scoring of patch tokens of any backbone: one score a patch, the mean over aggregation degrees and feature layers.
//
// `tokens` is [layers, images, rows * columns, width], row by row, finite. Without references, `reference_tokens` NULL and
// `references` 0, each image is compared with all others; with them, [layers, references, rows * columns, width], each image is compared
// with all references but those of the very same tokens. The degrees, the interval, the radius, the device and its threads are those of
// `options`, and NULL is all of them at their defaults. `progress` may be NULL.
//
// `buffer` gets images * rows * columns scores, [images, rows * columns]. With `buffer` NULL nothing is computed.
//
// Errors: MUSC_BAD_ARGUMENT for sizes of 0, values that are not finite, fewer than two images without references, a degree that is even
// or too large for the grid; MUSC_INTERRUPTED; MUSC_OUT_OF_MEMORY and MUSC_DEVICE.
musc_status musc_mutual_scores(const musc_options *options,
                               const float *tokens,
                               size_t layers,
                               size_t images,
                               size_t rows,
                               size_t columns,
                               size_t width,
                               const float *reference_tokens,
                               size_t references,
                               musc_progress progress,
                               void *user_data,
                               float *buffer,
                               size_t capacity,
                               size_t *needed);

// RsCIN: the image scores of a batch, smoothed over images whose class tokens are alike.
//
// `scores` is [images], `class_tokens` [images, width], both finite; `k` are `k_count` neighbourhood sizes, each at least 1, the image
// itself counted, and with `k_count` 0 they are 1, 2, 3. With `dot` 0 class tokens are compared by their cosine, with 1 by the plain
// product.
//
// `buffer` gets `images` scores.
//
// Errors: MUSC_BAD_ARGUMENT for a value or a k outside what is allowed, and for a class token that cannot be compared, by its image.
musc_status musc_rscin(const double *scores,
                       size_t images,
                       const float *class_tokens,
                       size_t width,
                       const size_t *k,
                       size_t k_count,
                       int32_t dot,
                       double *buffer,
                       size_t capacity,
                       size_t *needed);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MUSC_H */
