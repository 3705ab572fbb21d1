//! The library names what is wrong in its own words; a user of the program knows it by the option.

use musc::Error;

/// What the library calls a setting, and the option that sets it.
const OPTIONS: [(&str, &str); 19] = [
    ("device", "--device"),
    ("precision", "--precision"),
    ("pretrained", "--pretrained"),
    ("feature layers", "--feature_layers"),
    ("feature layer", "--feature_layers"),
    ("height of the input", "--img_resize or --img-size: height of the input"),
    ("width of the input", "--img_resize or --img-size: width of the input"),
    ("longer side of the images", "--keep-aspect"),
    ("aggregation degrees", "--r_list"),
    ("aggregation degree r", "--r_list"),
    ("RsCIN k", "--rscin_k"),
    ("divide_num", "--divide_num"),
    ("references", "--references"),
    ("references to keep", "--keep"),
    ("image size", "--img-size"),
    ("tiles", "--tiles"),
    ("overlap of tiles", "--tile-overlap"),
    ("labels to decide by", "--decide f1: labels"),
    ("defective images to decide by", "--decide f1: defective images"),
];

/// The same error with the option in the setting's place.
pub fn in_options(error: Error) -> Error {
    match error {
        Error::Invalid { what, found, expected } => {
            let option = OPTIONS.iter().find(|(setting, _)| *setting == what);
            let what = option.map_or(what, |(_, option)| option.to_string());
            Error::Invalid { what, found, expected }
        }
        other => other,
    }
}

/// An error of one option as that of another.
pub fn renamed(error: Error, option: &str) -> Error {
    match error {
        Error::Invalid { found, expected, .. } => Error::invalid(option, found, expected),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_go_by_their_options() {
        let device = "gpu".parse::<musc::backend::device::Device>().unwrap_err();
        assert!(in_options(device).to_string().starts_with("--device: found `gpu`"));
        let other = Error::invalid("frames", 0, "some");
        assert!(in_options(other).to_string().starts_with("frames: "));
    }
}
