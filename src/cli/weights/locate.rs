//! Where a run finds the weights of a backbone when none are named: beside the program's working folder, then in the cache of
//! the Hugging Face Hub.

use std::path::{Path, PathBuf};

use crate::cli::config::DEFAULT_PRETRAINED;
use crate::model::{Backbone, HubCache, Published};
use crate::{Error, Result};

/// The place of the weights inside the program.
pub const BUILT_IN: &str = "built-in";

/// A weight file on this machine.
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// The kind of place: `weights folder` or the repository it was published in.
    pub origin: &'static str,
}

/// Refuses a set of weights that the backbone does not have.
pub fn check_pretrained(known: &Backbone, pretrained: &str) -> Result<()> {
    if known.pretrained.is_empty() || known.pretrained.contains(&pretrained) {
        return Ok(());
    }
    Err(Error::invalid(
        "--pretrained",
        pretrained,
        format!("{} for {}", known.pretrained.join(" or "), known.name),
    ))
}

/// The command that gets these weights.
pub fn download_command(known: &Backbone, pretrained: &str) -> String {
    let default = known.pretrained.is_empty() || pretrained == DEFAULT_PRETRAINED;
    let set = if default { String::new() } else { format!(" --pretrained {pretrained}") };
    format!("musc-run weights download {}{set}", known.name)
}

/// The files in the working folder that stand for a backbone, the first that is there.
fn local(known: &Backbone, pretrained: &str) -> Vec<String> {
    let mut places = vec![format!("weights/{}.safetensors", known.name)];
    if !known.pretrained.is_empty() {
        places.insert(0, format!("weights/{}.{pretrained}.safetensors", known.name));
    }
    places
}

/// The file of one published row in the cache.
pub fn cached(cache: Option<&HubCache>, row: &Published) -> Option<PathBuf> {
    cache?.find(row.repository, row.file)
}

/// The file that stands for a backbone when none is named.
///
/// # Errors
/// [`Error::Weights`] with every place looked at and the command that gets the weights.
pub fn find(known: &Backbone, pretrained: &str) -> Result<Found> {
    find_in(known, pretrained, HubCache::of_environment().as_ref())
}

fn find_in(known: &Backbone, pretrained: &str, cache: Option<&HubCache>) -> Result<Found> {
    let mut places = local(known, pretrained);
    if let Some(place) = places.iter().find(|place| Path::new(place).is_file()) {
        return Ok(Found { path: place.into(), origin: "weights folder" });
    }
    let rows: Vec<&Published> = Published::of(known.name, pretrained).collect();
    for row in &rows {
        if let Some(path) = cached(cache, row) {
            return Ok(Found { path, origin: row.repository });
        }
    }
    let destination = places.first().cloned().unwrap_or_default();
    let mut advice = format!(
        "get them with\n    {}\n  or name a file with --weights",
        download_command(known, pretrained)
    );
    if let Some(cache) = cache {
        for row in &rows {
            places.push(format!(
                "{}/snapshots/*/{}",
                cache.repository(row.repository).display(),
                row.file
            ));
        }
        // What Python has loaded may lie there in the other form.
        let pytorch = rows.iter().find_map(|row| cache.find(row.repository, row.pytorch_file()));
        if let Some(file) = pytorch {
            advice = format!(
                "make one of the PyTorch file that is in the cache with\n    musc-run weights convert {} {destination}\n  \
                 or {advice}",
                file.display()
            );
        }
    }
    Err(Error::Weights {
        file: known.name.to_string(),
        problems: vec![format!(
            "no weights on this machine; {advice}\n  looked for\n    {}",
            places.join("\n    ")
        )],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::backbone;

    fn put(cache: &HubCache, repository: &str, file: &str) -> PathBuf {
        let path = cache.repository(repository).join("snapshots/0123456789").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "weights").unwrap();
        path
    }

    #[test]
    fn the_cache_is_searched_in_the_order_of_the_table() {
        let folder = tempfile::tempdir().unwrap();
        let cache = HubCache::new(folder.path());
        let known = backbone("ViT-L-14-336").unwrap();
        let second = put(&cache, "openai/clip-vit-large-patch14-336", "model.safetensors");
        let found = find_in(known, "openai", Some(&cache)).unwrap();
        assert_eq!((found.path, found.origin), (second, "openai/clip-vit-large-patch14-336"));
        let repository = "timm/vit_large_patch14_clip_336.openai";
        let first = put(&cache, repository, "open_clip_model.safetensors");
        assert_eq!(find_in(known, "openai", Some(&cache)).unwrap().path, first);
        // Another set of weights is another matter.
        assert!(find_in(backbone("ViT-L-14").unwrap(), "openai", Some(&cache)).is_err());
    }

    #[test]
    fn what_is_missing_is_said_with_the_command_that_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let cache = HubCache::new(folder.path());
        let message = |name: &str, pretrained: &str, cache: Option<&HubCache>| {
            find_in(backbone(name).unwrap(), pretrained, cache).err().unwrap().to_string()
        };
        let said = message("ViT-B-16", "laion400m_e32", Some(&cache));
        for part in [
            "musc-run weights download ViT-B-16 --pretrained laion400m_e32\n",
            "weights/ViT-B-16.laion400m_e32.safetensors\n",
            "weights/ViT-B-16.safetensors\n",
            "models--timm--vit_base_patch16_clip_224.laion400m_e32/snapshots/*/open_clip_model.safetensors",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert!(!said.contains("convert"), "{said}");
        put(&cache, "facebook/dinov2-large", "pytorch_model.bin");
        let said = message("dinov2_vitl14", "openai", Some(&cache));
        assert!(said.contains("musc-run weights convert "), "{said}");
        assert!(said.contains("pytorch_model.bin weights/dinov2_vitl14.safetensors\n"), "{said}");
        assert!(
            message("dinov2_vitl14", "openai", None).contains("weights download dinov2_vitl14\n")
        );
    }
}
