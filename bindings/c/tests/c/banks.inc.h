/* Included at the end of errors.c, its second half: banks, predictors, and the parts of the method alone. */
static void banks(const musc_inspector *inspector, const char *folder, const char *scratch, const char *weights) {
    char file[4096], path[4096], info[4096];
    musc_options *options = NULL;
    musc_inspector *other = NULL, *fits = NULL;
    musc_batch *batch = NULL;
    musc_bank *bank = (musc_bank *)&checks, *bigger = NULL;
    musc_predictor *predictor = NULL;
    musc_inspection *found = NULL;
    size_t count = 0, needed = 0;
    double threshold = 0, of_predictor = 0;
    float raw[64];
    uint8_t decision = 9;
    int steps = 0;
    unsigned char pixels[3] = {1, 2, 3};
    musc_frame frame = {pixels, 1, 1, 0, NULL};
    frame.name = NULL;

    snprintf(file, sizeof file, "%s/part.bank.safetensors", scratch);
    OK(musc_batch_folder(folder, &batch));
    BAD(musc_bank_build(NULL, batch, NULL, NULL, NULL, &bank), "NULL");
    BAD(musc_bank_build(inspector, NULL, NULL, NULL, NULL, &bank), "musc_batch");
    TRUE(bank == NULL);
    BAD(musc_bank_build(inspector, batch, "mebin", NULL, NULL, &bank), "mebin");
    BAD(musc_bank_build(inspector, batch, "guess", NULL, NULL, &bank), "guess");
    BAD(musc_bank_build(inspector, batch, NULL, NULL, NULL, NULL), "NULL");
    FAILS(musc_bank_build(inspector, batch, NULL, stop_at_once, &steps, &bank), MUSC_INTERRUPTED, "interrupted");
    OK(musc_bank_build(inspector, batch, NULL, NULL, NULL, &bank));
    FAILS(musc_bank_save(bank, "/dev/null/bank"), MUSC_BAD_FILE, "/dev/null");
    BAD(musc_bank_save(bank, NULL), "file: found NULL");
    BAD(musc_bank_save(bank, NO_UTF8), "UTF-8");
    BAD(musc_bank_save(NULL, file), "NULL");
    OK(musc_bank_save(bank, file));
    OK(musc_bank_free(bank));
    BAD(musc_bank_free(bank), "freed");
    BAD(musc_bank_count(bank, &count), "freed");
    FAILS(musc_bank_open("/no/such/bank", &bank), MUSC_NOT_FOUND, "/no/such/bank");
    FAILS(musc_bank_open(weights, &bank), MUSC_BAD_FILE, "no bank");
    FAILS(musc_bank_open("/dev/null", &bank), MUSC_BAD_FILE, "/dev/null");
    BAD(musc_bank_open(NULL, &bank), "NULL");
    TRUE(bank == NULL);
    OK(musc_bank_open(file, &bank));
    OK(musc_bank_count(bank, &count));
    BUFFER(float, count, musc_bank_raw_scores, bank);
    OK(musc_bank_name(bank, 0, path, sizeof path, &needed));
    BUFFER(char, needed, musc_bank_name, bank, 0);
    OK(musc_bank_info(bank, info, sizeof info, &needed));
    TRUE(strstr(info, "\"input\":\"70x70\"") != NULL && strlen(info) + 1 == needed);
    BUFFER(char, needed, musc_bank_info, bank);
    BAD(musc_bank_name(bank, count, path, sizeof path, NULL), "reference: found");
    BAD(musc_bank_count(bank, NULL), "NULL");
    BAD(musc_bank_threshold(bank, NULL), "NULL");
    OK(musc_bank_threshold(bank, &threshold));

    /* Images that are in it already change nothing. */
    BAD(musc_bank_add(inspector, NULL, batch, NULL, NULL, &bigger), "musc_bank: found NULL");
    OK(musc_bank_add(inspector, bank, batch, NULL, NULL, &bigger));
    OK(musc_bank_count(bigger, &needed));
    TRUE(needed == count);
    OK(musc_bank_free(bigger));

    /* An inspector of other settings, and one of the bank's own. */
    FAILS(musc_bank_options(bank, 99, &options), MUSC_WRONG_ABI, "99");
    BAD(musc_bank_options(bank, MUSC_ABI_VERSION, NULL), "NULL");
    OK(musc_bank_options(bank, MUSC_ABI_VERSION, &options));
    OK(musc_options_set_weights(options, weights));
    OK(musc_options_set_device(options, "cpu"));
    OK(musc_inspector_new(options, &fits));
    OK(musc_options_set_size(options, 56, 56));
    OK(musc_inspector_new(options, &other));
    BAD(musc_predictor_new(other, bank, NULL, 0, &predictor), "70x70");
    BAD(musc_predictor_new(NULL, bank, NULL, 0, &predictor), "NULL");
    BAD(musc_predictor_new(fits, NULL, NULL, 0, &predictor), "NULL");
    BAD(musc_predictor_new(fits, bank, NULL, 1, &predictor), "references to keep");
    BAD(musc_predictor_new(fits, bank, "guess", 0, &predictor), "guess");
    BAD(musc_predictor_new(fits, bank, NULL, 0, NULL), "NULL");
    OK(musc_predictor_new(fits, bank, NULL, 0, &predictor));
    /* It has all it needs. */
    OK(musc_inspector_free(fits));
    OK(musc_inspector_free(other));
    OK(musc_options_free(options));
    OK(musc_bank_free(bank));

    OK(musc_predictor_threshold(predictor, &of_predictor));
    TRUE(of_predictor == threshold);
    BAD(musc_predictor_threshold(predictor, NULL), "NULL");
    BAD(musc_predictor_path(predictor, NULL, &found), "file: found NULL");
    BAD(musc_predictor_path(NULL, path, &found), "NULL");
    FAILS(musc_predictor_path(predictor, "/no/such.png", &found), MUSC_NOT_FOUND, "/no/such.png");
    BAD(musc_predictor_frame(predictor, NULL, &found), "frame: found NULL");
    BAD(musc_predictor_predict(predictor, NULL, NULL, NULL, &found), "musc_batch");
    FAILS(musc_predictor_predict(predictor, batch, stop_at_once, &steps, &found), MUSC_INTERRUPTED, "interrupted");
    TRUE(found == NULL);
    OK(musc_predictor_predict(predictor, batch, NULL, NULL, &found));
    OK(musc_inspection_raw_scores(found, raw, 64, &needed));
    TRUE(needed == count);
    OK(musc_inspection_free(found));
    OK(musc_predictor_path(predictor, path, &found));
    OK(musc_inspection_raw_scores(found, raw + 1, 1, NULL));
    TRUE(raw[0] == raw[1]);
    OK(musc_inspection_threshold(found, NULL, &of_predictor));
    TRUE(of_predictor == threshold);
    OK(musc_inspection_decisions(found, NULL, &decision, 1, NULL));
    TRUE(decision == (raw[0] > threshold));
    OK(musc_inspection_free(found));
    OK(musc_predictor_frame(predictor, &frame, &found));
    OK(musc_inspection_free(found));
    OK(musc_predictor_free(predictor));
    BAD(musc_predictor_path(predictor, path, &found), "freed");

    /* One that slides takes the frame in, where it is not above the threshold. */
    OK(musc_bank_open(file, &bank));
    OK(musc_predictor_new(inspector, bank, "1.5", count + 1, &predictor));
    OK(musc_bank_free(bank));
    OK(musc_predictor_frame(predictor, &frame, &found));
    OK(musc_inspection_free(found));
    BAD(musc_predictor_bank(predictor, NULL), "NULL");
    OK(musc_predictor_bank(predictor, &bank));
    OK(musc_bank_count(bank, &needed));
    TRUE(needed == count + 1);
    OK(musc_bank_free(bank));
    OK(musc_predictor_free(predictor));
    OK(musc_batch_free(batch));
}

static void scores_alone(void) {
    /* [2 layers, 3 images, 2 x 2, 2]: the third image has another patch. */
    float tokens[48], scores[12], with[12], bad[48];
    static const size_t one[] = {1}, zero[] = {0};
    static const double image_scores[] = {0.25, 0.5, 1};
    static const float class_tokens[] = {1, 0, 1, 0.125f, 0, 1}, flat[] = {0, 0, 0, 0, 0, 0};
    double rescored[3];
    musc_options *options = NULL;
    size_t needed = 0, at;
    int steps = 0;
    for (at = 0; at < 48; at++) tokens[at] = (float)((at % 8) * (at % 8) % 5) - 1.5f;
    tokens[22] = 9;
    memcpy(bad, tokens, sizeof bad);
    bad[7] = (float)(1e308 * 10);
    OK(musc_options_new(MUSC_ABI_VERSION, &options));
    OK(musc_options_set_device(options, "cpu"));
    OK(musc_options_set_degrees(options, one, 1));
    BUFFER(float, (size_t)12, musc_mutual_scores, options, tokens, 2, 3, 2, 2, 2, NULL, 0, NULL, NULL);
    OK(musc_mutual_scores(options, tokens, 2, 3, 2, 2, 2, NULL, 0, NULL, NULL, scores, 12, &needed));
    TRUE(scores[0] < 1e-3f && scores[11] > 1e-2f);
    OK(musc_mutual_scores(options, tokens, 2, 3, 2, 2, 2, tokens, 3, NULL, NULL, with, 12, NULL));
    BAD(musc_mutual_scores(options, NULL, 2, 3, 2, 2, 2, NULL, 0, NULL, NULL, scores, 12, NULL), "tokens: found NULL");
    BAD(musc_mutual_scores(options, tokens, 2, 3, 2, 2, 2, NULL, 3, NULL, NULL, scores, 12, NULL), "reference tokens: found NULL");
    BAD(musc_mutual_scores(options, tokens, 2, 3, 2, 2, 2, tokens, 0, NULL, NULL, scores, 12, NULL), "found 0");
    BAD(musc_mutual_scores(options, bad, 2, 3, 2, 2, 2, NULL, 0, NULL, NULL, scores, 12, NULL), "finite");
    BAD(musc_mutual_scores(options, tokens, 0, 3, 2, 2, 2, NULL, 0, NULL, NULL, scores, 12, NULL), "layers");
    BAD(musc_mutual_scores(options, tokens, 2, 1, 2, 2, 2, NULL, 0, NULL, NULL, scores, 12, NULL), "at least 2");
    BAD(musc_mutual_scores(options, tokens, 2, 0, 2, 2, 2, NULL, 0, NULL, NULL, scores, 12, NULL), "found");
    BAD(musc_mutual_scores(options, tokens, 2, 3, 0, 2, 2, NULL, 0, NULL, NULL, scores, 12, NULL), "grid");
    BAD(musc_mutual_scores(options, tokens, 2, 3, 2, 2, 0, NULL, 0, NULL, NULL, scores, 12, NULL), "width");
    BAD(musc_mutual_scores(options, tokens, (size_t)-1, 3, 2, 2, 2, NULL, 0, NULL, NULL, scores, 12, NULL), "memory");
    FAILS(musc_mutual_scores(options, tokens, 2, 3, 2, 2, 2, NULL, 0, NULL, NULL, scores, 11, NULL), MUSC_BUFFER_TOO_SMALL, "12");
    FAILS(musc_mutual_scores(options, tokens, 2, 3, 2, 2, 2, NULL, 0, stop_at_once, &steps, scores, 12, NULL),
          MUSC_INTERRUPTED, "interrupted");
    OK(musc_options_free(options));
    BAD(musc_mutual_scores(options, tokens, 2, 3, 2, 2, 2, NULL, 0, NULL, NULL, scores, 12, NULL), "freed");

    BUFFER(double, (size_t)3, musc_rscin, image_scores, 3, class_tokens, 2, NULL, 0, 0);
    OK(musc_rscin(image_scores, 3, class_tokens, 2, one, 1, 1, rescored, 3, NULL));
    TRUE(rescored[0] == 0 && rescored[2] == 1);
    BAD(musc_rscin(NULL, 3, class_tokens, 2, NULL, 0, 0, rescored, 3, NULL), "scores: found NULL");
    BAD(musc_rscin(image_scores, 3, NULL, 2, NULL, 0, 0, rescored, 3, NULL), "class tokens: found NULL");
    BAD(musc_rscin(image_scores, 3, class_tokens, 2, NULL, 1, 0, rescored, 3, NULL), "k: found NULL");
    BAD(musc_rscin(image_scores, 3, class_tokens, 2, zero, 1, 0, rescored, 3, NULL), "RsCIN k");
    BAD(musc_rscin(image_scores, 3, class_tokens, 2, one, 1, 5, rescored, 3, NULL), "found 5");
    BAD(musc_rscin(image_scores, 3, class_tokens, 0, one, 1, 0, rescored, 3, NULL), "class tokens");
    BAD(musc_rscin(image_scores, 3, flat, 2, one, 1, 0, rescored, 3, NULL), "all zeros");
    BAD(musc_rscin(image_scores, (size_t)-1, class_tokens, 2, one, 1, 0, rescored, 3, NULL), "memory");
}

int main(int count, char **words) {
    musc_options *options = NULL;
    musc_inspector *inspector = NULL;
    const int at_start = threads();
    if (count != 4) {
        fprintf(stderr, "usage: errors FOLDER WEIGHTS SCRATCH\n");
        return 2;
    }
    versions();
    options_refuse();
    batches_refuse(words[1], words[3]);
    OK(musc_options_new(MUSC_ABI_VERSION, &options));
    OK(musc_options_set_device(options, "cpu"));
    OK(musc_options_set_threads(options, 2));
    OK(musc_options_set_weights(options, words[2]));
    OK(musc_options_set_size(options, 70, 70));
    OK(musc_inspector_new(options, &inspector));
    OK(musc_options_free(options));
    inspections(inspector, words[1], words[3]);
    skipped(inspector, words[1], words[3]);
    frames(inspector);
    banks(inspector, words[1], words[3], words[2]);
    scores_alone();
    OK(musc_inspector_free(inspector));
    BAD(musc_inspector_free(inspector), "freed");
    TRUE(musc_live_handles() == 0);
    wait_for_threads(at_start);
    printf("%d checks, %d faults\n", checks, faults);
    return faults == 0 ? 0 : 1;
}
