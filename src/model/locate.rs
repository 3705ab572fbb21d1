//! Where the weights of a backbone are found when no file is named: beside the working folder, then in the cache of the
//! Hugging Face Hub.

use std::path::{Path, PathBuf};

use super::{Backbone, HubCache, Published};
use crate::{Error, Result};

/// The set of weights that is meant where none is named.
pub const DEFAULT_PRETRAINED: &str = "openai";

/// A weight file on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// The kind of place: `weights folder` or the repository it was published in.
    pub origin: &'static str,
}

/// Refuses a set of weights that the backbone does not have.
///
/// # Errors
/// [`Error::Invalid`] with the sets there are.
pub fn check_pretrained(known: &Backbone, pretrained: &str) -> Result<()> {
    if known.pretrained.is_empty() || known.pretrained.contains(&pretrained) {
        return Ok(());
    }
    Err(Error::invalid(
        "pretrained",
        pretrained,
        format!("{} for {}", known.pretrained.join(" or "), known.name),
    ))
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
/// [`Error::NoWeights`] with every place looked at.
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
    let mut pytorch = None;
    if let Some(cache) = cache {
        for row in &rows {
            places.push(format!(
                "{}/snapshots/*/{}",
                cache.repository(row.repository).display(),
                row.file
            ));
        }
        // What Python has loaded may lie there in the other form.
        pytorch = rows.iter().find_map(|row| cache.find(row.repository, row.pytorch_file()));
    }
    Err(Error::NoWeights {
        backbone: known.name.to_string(),
        pretrained: if known.pretrained.is_empty() {
            String::new()
        } else {
            pretrained.to_string()
        },
        places,
        pytorch,
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
    fn every_place_is_named_and_a_pytorch_file_too() {
        let folder = tempfile::tempdir().unwrap();
        let cache = HubCache::new(folder.path());
        let error = |name: &str, pretrained: &str| {
            find_in(backbone(name).unwrap(), pretrained, Some(&cache)).err().unwrap()
        };
        let said = error("ViT-B-16", "laion400m_e32").to_string();
        for part in [
            "weights/ViT-B-16.laion400m_e32.safetensors\n",
            "weights/ViT-B-16.safetensors\n",
            "models--timm--vit_base_patch16_clip_224.laion400m_e32/snapshots/*/open_clip_model.safetensors",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        let pytorch = put(&cache, "facebook/dinov2-large", "pytorch_model.bin");
        match error("dinov2_vitl14", "openai") {
            Error::NoWeights { backbone, pretrained, pytorch: found, places } => {
                assert_eq!((backbone.as_str(), pretrained.as_str()), ("dinov2_vitl14", ""));
                assert_eq!(found, Some(pytorch));
                assert_eq!(places[0], "weights/dinov2_vitl14.safetensors");
            }
            other => panic!("{other}"),
        }
    }
}
