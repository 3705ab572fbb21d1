//! The sample images inside the program: 30 textiles, 10 of them with a local defect.
//!
//! They are written to a folder before the run, so that one can look at them; see `assets/textile/README.md` for
//! where they come from.

use std::path::Path;

use musc::Result;
#[cfg(built_in)]
use musc::report::write_file;

#[cfg(built_in)]
macro_rules! sample {
    ($path:literal) => {
        ($path, include_bytes!(concat!("../../../assets/textile/", $path)) as &[u8])
    };
}

/// Path under `assets/textile/`, and the file.
#[cfg(built_in)]
const IMAGES: [(&str, &[u8]); 30] = [
    sample!("defect/textile_0001.jpg"),
    sample!("defect/textile_0002.jpg"),
    sample!("defect/textile_0003.jpg"),
    sample!("defect/textile_0004.jpg"),
    sample!("defect/textile_0005.jpg"),
    sample!("defect/textile_0006.jpg"),
    sample!("defect/textile_0007.jpg"),
    sample!("defect/textile_0008.jpg"),
    sample!("defect/textile_0009.jpg"),
    sample!("defect/textile_0010.jpg"),
    sample!("good/textile_0001.jpg"),
    sample!("good/textile_0002.jpg"),
    sample!("good/textile_0003.jpg"),
    sample!("good/textile_0004.jpg"),
    sample!("good/textile_0005.jpg"),
    sample!("good/textile_0006.jpg"),
    sample!("good/textile_0007.jpg"),
    sample!("good/textile_0008.jpg"),
    sample!("good/textile_0009.jpg"),
    sample!("good/textile_0010.jpg"),
    sample!("good/textile_0011.jpg"),
    sample!("good/textile_0012.jpg"),
    sample!("good/textile_0013.jpg"),
    sample!("good/textile_0014.jpg"),
    sample!("good/textile_0015.jpg"),
    sample!("good/textile_0016.jpg"),
    sample!("good/textile_0017.jpg"),
    sample!("good/textile_0018.jpg"),
    sample!("good/textile_0019.jpg"),
    sample!("good/textile_0020.jpg"),
];

/// Text of the images' licence.
#[cfg(built_in)]
const LICENCE: &[u8] = include_bytes!("../../../assets/textile/LICENSE");

/// Writes the images to `ROOT/images`, in `good` and `defect`, and returns that folder as an input of a run.
#[cfg(built_in)]
pub fn write_images(root: &Path) -> Result<String> {
    let folder = root.join("images");
    for (path, bytes) in IMAGES {
        write_file(&folder.join(path), |writer| writer.write_all(bytes))?;
    }
    // Beside the folder: inside, it would be a file that is no image.
    write_file(&root.join("images-LICENSE.txt"), |writer| writer.write_all(LICENCE))?;
    Ok(folder.display().to_string())
}

/// This program was built without the images.
#[cfg(not(built_in))]
pub fn write_images(_: &Path) -> Result<String> {
    Err(musc::Error::invalid(
        "demo",
        "a program without the sample images, which are not in the package of a registry",
        "a program built from the repository, or a folder of your own: musc-run FOLDER",
    ))
}
