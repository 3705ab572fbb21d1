// Keeps known-good images in a file, and compares new ones with them: bank GOOD BANK NEW.png... [SIDE= and WEIGHTS= in the environment]
#include <musc.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

static void check(musc_status status) {
    if (status != MUSC_OK) throw std::runtime_error(std::string(musc_status_name(status)) + ": " + musc_last_error());
}

// Each handle is freed with the function of its type.
template <auto Free> struct With {
    template <class Handle> void operator()(Handle *handle) const { Free(handle); }
};
using Options = std::unique_ptr<musc_options, With<musc_options_free>>;
using Batch = std::unique_ptr<musc_batch, With<musc_batch_free>>;
using Inspector = std::unique_ptr<musc_inspector, With<musc_inspector_free>>;
using Inspection = std::unique_ptr<musc_inspection, With<musc_inspection_free>>;
using Bank = std::unique_ptr<musc_bank, With<musc_bank_free>>;
using Predictor = std::unique_ptr<musc_predictor, With<musc_predictor_free>>;

// Calls a function whose last argument is the place for a new handle.
template <class Owner, class Function, class... Arguments> Owner make(Function function, Arguments... arguments) {
    typename Owner::pointer handle = nullptr;
    check(function(arguments..., &handle));
    return Owner(handle);
}

static Inspector inspector_of(const Options &options) {
    if (const char *weights = std::getenv("WEIGHTS")) check(musc_options_set_weights(options.get(), weights));
    check(musc_options_set_device(options.get(), "cpu"));
    return make<Inspector>(musc_inspector_new, options.get());
}

static void build(const char *good, const char *file) {
    const char *side = std::getenv("SIDE");
    const std::size_t pixels = side ? std::stoul(side) : 518;
    const auto options = make<Options>(musc_options_new, MUSC_ABI_VERSION);
    check(musc_options_set_size(options.get(), pixels, pixels));
    const auto batch = make<Batch>(musc_batch_folder, good);
    const auto inspector = inspector_of(options);
    const auto bank = make<Bank>(musc_bank_build, inspector.get(), batch.get(), nullptr, nullptr, nullptr);
    check(musc_bank_save(bank.get(), file));
}

static void compare(const char *file, int count, char **paths) {
    const auto bank = make<Bank>(musc_bank_open, file);
    const auto options = make<Options>(musc_bank_options, bank.get(), MUSC_ABI_VERSION);
    const auto inspector = inspector_of(options);
    const auto predictor = make<Predictor>(musc_predictor_new, inspector.get(), bank.get(), nullptr, 0);
    for (int at = 0; at < count; at++) {
        const auto found = make<Inspection>(musc_predictor_path, predictor.get(), paths[at]);
        float raw = 0;
        std::uint8_t defective = 0;
        check(musc_inspection_raw_scores(found.get(), &raw, 1, nullptr));
        check(musc_inspection_decisions(found.get(), nullptr, &defective, 1, nullptr));
        std::cout.precision(9);
        std::cout << raw << ',' << (defective ? "NG" : "OK") << ',' << paths[at] << '\n';
    }
}

int main(int count, char **words) try {
    if (count < 4) {
        std::cerr << "usage: bank GOOD BANK NEW.png...\n";
        return 2;
    }
    build(words[1], words[2]);
    compare(words[2], count - 3, words + 3);
    return musc_live_handles() == 0 ? 0 : 1;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
