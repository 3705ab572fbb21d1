//! Patch tokens and class tokens of a set of images: what every device tells of them, and their form on the host.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::{Error, Grid, Result};

/// Patch tokens and class tokens of N images, wherever the backend keeps them.
pub trait FeatureSet {
    /// Number of images N.
    fn images(&self) -> usize;
    /// The grid of patch tokens of every image, H rows of W.
    fn grid(&self) -> Grid;
    /// Width C of a token.
    fn width(&self) -> usize;
    /// The feature layers' block indices.
    fn layers(&self) -> &[usize];
    /// Width E of a class token; 0 when there are none.
    fn class_width(&self) -> usize;
    /// A number for each image's content, `[N]`: two images with the same number are the same image, see
    /// [`HostFeatures::content`].
    fn content(&self) -> &[u64];
    /// The patches that are left out, see [`HostFeatures::left_out`].
    fn left_out(&self) -> &[bool];
    /// The class tokens `[N, E]`, copied to the host.
    ///
    /// # Errors
    /// The device's, when the copy fails.
    fn class_tokens(&self) -> Result<Vec<f32>>;
    /// The patch tokens `[N, L, C]` of the `index`-th feature layer, copied to the host.
    ///
    /// # Errors
    /// An index past the last layer, or the device's error when the copy fails.
    fn patch_tokens(&self, index: usize) -> Result<Vec<f32>>;

    /// Patch tokens an image, L = H·W.
    fn patches(&self) -> usize {
        self.grid().patches()
    }

    /// All of it, copied to the host.
    ///
    /// # Errors
    /// The device's, when a copy fails.
    fn to_host(&self) -> Result<HostFeatures> {
        let tokens =
            (0..self.layers().len()).map(|at| self.patch_tokens(at)).collect::<Result<_>>()?;
        Ok(HostFeatures {
            images: self.images(),
            grid: self.grid(),
            width: self.width(),
            layers: self.layers().to_vec(),
            tokens,
            class_width: self.class_width(),
            class_tokens: self.class_tokens()?,
            content: self.content().to_vec(),
            left_out: self.left_out().to_vec(),
        })
    }
}

/// Features on the host, the form in which they enter a backend from outside and leave it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HostFeatures {
    /// Number of images N.
    pub images: usize,
    /// The grid of patch tokens, H rows of W; L = H·W.
    pub grid: Grid,
    /// Width C.
    pub width: usize,
    /// Block indices of the feature layers.
    pub layers: Vec<usize>,
    /// One `[N, L, C]` a layer.
    pub tokens: Vec<Vec<f32>>,
    /// Width E of a class token.
    pub class_width: usize,
    /// `[N, E]`.
    pub class_tokens: Vec<f32>,
    /// A hash of each image's pixels, `[N]`, by which a query is kept from being compared with itself among its
    /// references; empty where nothing is known of the pixels, then [`Self::with_known_content`] takes the tokens'.
    pub content: Vec<u64>,
    /// `[N, L]`, true for patches that are no part of the image (padding, outside a region): they count as lying outside
    /// the grid, are neither scored nor compared with, and their score is 0. Empty where there are none.
    pub left_out: Vec<bool>,
}

impl HostFeatures {
    /// Patch tokens of N images, one `[N, L, C]` a layer, without class tokens.
    pub fn new(
        images: usize,
        grid: Grid,
        width: usize,
        layers: Vec<usize>,
        tokens: Vec<Vec<f32>>,
    ) -> Self {
        HostFeatures {
            images,
            grid,
            width,
            layers,
            tokens,
            class_width: 0,
            class_tokens: Vec::new(),
            content: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// With class tokens `[N, E]`.
    pub fn with_class_tokens(mut self, width: usize, tokens: Vec<f32>) -> Self {
        (self.class_width, self.class_tokens) = (width, tokens);
        self
    }

    /// With a hash of each image's pixels, `[N]`.
    pub fn with_content(mut self, content: Vec<u64>) -> Self {
        self.content = content;
        self
    }

    /// Another hash of each image's pixels, `[N]`.
    #[cfg(feature = "files")]
    pub(crate) fn set_content(&mut self, content: Vec<u64>) {
        self.content = content;
    }

    /// With patches that are left out, `[N, L]`.
    pub fn with_left_out(mut self, left_out: Vec<bool>) -> Self {
        self.left_out = left_out;
        self
    }

    /// With the hash of each image's tokens as its content, where nothing is known of the pixels.
    pub fn with_known_content(mut self) -> Self {
        self.content = self.known_content().into_owned();
        self
    }

    /// The images' content; the hash of each image's tokens, where nothing is known of the pixels.
    pub(crate) fn known_content(&self) -> Cow<'_, [u64]> {
        if self.content.len() == self.images {
            return Cow::Borrowed(&self.content);
        }
        let values = self.patches().saturating_mul(self.width);
        let of_image = |image: usize| {
            let mut hash = ContentHash::default();
            for layer in &self.tokens {
                let tokens = layer.get(image * values..(image + 1) * values);
                hash.add(bytemuck::cast_slice(tokens.unwrap_or_default()));
            }
            hash.finish()
        };
        Cow::Owned((0..self.images).map(of_image).collect())
    }

    /// Other features of the same grid, width and layers behind these, each with known content.
    #[cfg(feature = "files")]
    pub(crate) fn push(&mut self, other: HostFeatures) {
        let patches = self.patches();
        join_marks((&mut self.left_out, self.images), (&other.left_out, other.images), patches);
        for (one, two) in self.tokens.iter_mut().zip(other.tokens) {
            one.extend(two);
        }
        self.class_tokens.extend(other.class_tokens);
        self.content.extend(other.content);
        self.images += other.images;
    }

    /// Puts an image of other features, with what is known of it, in the place of one. Layers whose tokens have been let go are
    /// passed over.
    ///
    /// # Errors
    /// [`Error::Invalid`] for features that do not fit together, another grid, width or layers, and a place past the last.
    pub(crate) fn replace(&mut self, at: usize, from: &HostFeatures, image: usize) -> Result<()> {
        from.check()?;
        check_alike(from, self)?;
        if from.class_width != self.class_width {
            let expected = format!("{}, as the references have", self.class_width);
            return Err(Error::invalid("width of the class tokens", from.class_width, expected));
        }
        for (what, at, images) in [("reference", at, self.images), ("image", image, from.images)] {
            if at >= images {
                return Err(Error::invalid(what, at, format!("below {images}")));
            }
        }
        if self.content.len() != self.images {
            self.content = self.known_content().into_owned();
        }
        self.content[at] = from.known_content()[image];
        let (patches, width) = (self.patches(), self.class_width);
        let marks = from.left_out.get(image * patches..(image + 1) * patches);
        replace_marks((&mut self.left_out, self.images), at, marks.unwrap_or_default(), patches);
        self.class_tokens[at * width..][..width]
            .copy_from_slice(&from.class_tokens[image * width..][..width]);
        let values = patches * self.width;
        for (to, from) in self.tokens.iter_mut().zip(&from.tokens) {
            if !to.is_empty() {
                to[at * values..][..values].copy_from_slice(&from[image * values..][..values]);
            }
        }
        Ok(())
    }

    /// Checks that all sizes fit together and all values are finite.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what does not fit, an image of which nothing is left, or the first value that is no number.
    pub fn check(&self) -> Result<()> {
        self.check_sizes()?;
        for (layer, tokens) in self.layers.iter().zip(&self.tokens) {
            check_finite(&format!("patch tokens of layer {layer}"), tokens)?;
        }
        check_finite("class tokens", &self.class_tokens)
    }

    /// Checks that all sizes fit together, and that something is left of every image.
    ///
    /// # Errors
    /// As [`Self::check`], which looks at every value besides.
    pub(crate) fn check_sizes(&self) -> Result<()> {
        if self.grid.rows == 0 || self.grid.columns == 0 {
            return Err(Error::invalid("grid of patch tokens", self.grid, "at least 1x1"));
        }
        if self.width == 0 {
            return Err(Error::invalid("width of the patch tokens", 0, "at least 1"));
        }
        if self.tokens.is_empty() || self.tokens.len() != self.layers.len() {
            return Err(Error::invalid(
                "feature layers",
                self.tokens.len(),
                format!("{} (one a named layer, at least one)", self.layers.len()),
            ));
        }
        let product = |parts: &[usize]| {
            let whole = parts.iter().try_fold(1usize, |product, &part| product.checked_mul(part));
            whole.ok_or_else(|| {
                Error::invalid(
                    "sizes of the features",
                    format!("{parts:?}"),
                    "a product below 2^64",
                )
            })
        };
        let expected = product(&[self.images, self.grid.rows, self.grid.columns, self.width])?;
        for (layer, tokens) in self.layers.iter().zip(&self.tokens) {
            check_length(&format!("patch tokens of layer {layer}"), tokens, expected)?;
        }
        let expected = product(&[self.images, self.class_width])?;
        check_length("class tokens", &self.class_tokens, expected)?;
        for (what, found, all) in [
            ("hashes of the images' content", self.content.len(), self.images),
            ("marks of patches left out", self.left_out.len(), self.images * self.patches()),
        ] {
            if found != 0 && found != all {
                return Err(Error::invalid(what, found, format!("{all}, or none")));
            }
        }
        let mut images = self.left_out.chunks_exact(self.patches());
        match images.position(|marks| !marks.contains(&false)) {
            None => Ok(()),
            Some(image) => Err(Error::invalid(
                format!("patches left out of image {image}"),
                format!("all {}", self.patches()),
                "at least one patch that is left",
            )),
        }
    }
}

/// Marks of one image `[L]`, or none, in the place of another's among those of `images` images `[N, L]`, or none.
pub(crate) fn replace_marks(
    (left_out, images): (&mut Vec<bool>, usize),
    at: usize,
    marks: &[bool],
    patches: usize,
) {
    if left_out.is_empty() && marks.is_empty() {
        return;
    }
    left_out.resize(images * patches, false);
    let to = &mut left_out[at * patches..][..patches];
    if marks.is_empty() { to.fill(false) } else { to.copy_from_slice(marks) }
}

/// Marks of some images `[M, L]`, or none, behind those of others `[N, L]`, or none.
#[cfg(any(feature = "files", feature = "cuda"))]
pub(crate) fn join_marks(
    (left_out, images): (&mut Vec<bool>, usize),
    (others, more): (&[bool], usize),
    patches: usize,
) {
    if left_out.is_empty() && others.is_empty() {
        return;
    }
    left_out.resize(images * patches, false);
    left_out.extend(others);
    left_out.resize((images + more) * patches, false);
}

fn check_length(what: &str, values: &[f32], expected: usize) -> Result<()> {
    if values.len() != expected {
        return Err(Error::invalid(what, format!("{} values", values.len()), expected.to_string()));
    }
    Ok(())
}

fn check_finite(what: &str, values: &[f32]) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => {
            Err(Error::invalid(what, format!("{} at position {at}", values[at]), "finite numbers"))
        }
        None => Ok(()),
    }
}

/// Features in the host's memory.
impl FeatureSet for HostFeatures {
    fn images(&self) -> usize {
        self.images
    }

    fn grid(&self) -> Grid {
        self.grid
    }

    fn width(&self) -> usize {
        self.width
    }

    fn layers(&self) -> &[usize] {
        &self.layers
    }

    fn class_width(&self) -> usize {
        self.class_width
    }

    fn content(&self) -> &[u64] {
        &self.content
    }

    fn left_out(&self) -> &[bool] {
        &self.left_out
    }

    fn class_tokens(&self) -> Result<Vec<f32>> {
        Ok(self.class_tokens.clone())
    }

    fn patch_tokens(&self, index: usize) -> Result<Vec<f32>> {
        self.tokens.get(index).cloned().ok_or_else(|| {
            Error::invalid("feature layer index", index, format!("below {}", self.tokens.len()))
        })
    }
}

/// Whom the queries are compared with.
#[derive(Debug)]
pub enum References<'a, F: ?Sized> {
    /// Every image sees every other one of the same set. Each product of two images serves both.
    Others,
    /// Each query sees all images of another set, but never one with its own content.
    Set(&'a F),
}

impl<F: ?Sized> Clone for References<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: ?Sized> Copy for References<'_, F> {}

/// Checks that queries can be compared with references: same grid, same width, same feature layers.
///
/// # Errors
/// [`Error::Invalid`] that names what differs, with both values.
pub(crate) fn check_alike(queries: &impl FeatureSet, references: &impl FeatureSet) -> Result<()> {
    let differs = |what: &str, found: String, expected: String| {
        Err(Error::invalid(
            format!("{what} of the queries"),
            found,
            format!("{expected}, as the references have"),
        ))
    };
    if queries.grid() != references.grid() {
        return differs("patch grid", queries.grid().to_string(), references.grid().to_string());
    }
    if queries.width() != references.width() {
        let (found, expected) = (queries.width().to_string(), references.width().to_string());
        return differs("token width", found, expected);
    }
    if queries.layers() != references.layers() {
        let list =
            |layers: &[usize]| layers.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
        return differs("feature layers", list(queries.layers()), list(references.layers()));
    }
    Ok(())
}

/// For each query the references that have its content and that it therefore does not see, in rising order.
///
/// # Errors
/// [`Error::Invalid`] when there is no reference, or a query would see none.
pub(crate) fn unseen(queries: &[u64], references: &[u64]) -> Result<Vec<Vec<usize>>> {
    if references.is_empty() {
        return Err(Error::invalid("references", "none", "at least one image"));
    }
    let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
    for (at, content) in references.iter().enumerate() {
        places.entry(*content).or_default().push(at);
    }
    let unseen: Vec<Vec<usize>> =
        queries.iter().map(|content| places.get(content).cloned().unwrap_or_default()).collect();
    match unseen.iter().position(|same| same.len() == references.len()) {
        None => Ok(unseen),
        Some(query) => Err(Error::invalid(
            format!("references of query {query}"),
            format!("{} with the query's own content and no other", references.len()),
            "at least one image that is not the query itself",
        )),
    }
}

/// A 64-bit hash of an image's content: FNV-1a over 8 bytes at a time, mixed at the end. Not for adversaries.
#[derive(Debug, Clone)]
pub(crate) struct ContentHash(u64);

impl Default for ContentHash {
    fn default() -> Self {
        ContentHash(0xcbf2_9ce4_8422_2325)
    }
}

impl ContentHash {
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    /// Takes in bytes, and how many they are.
    pub fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let tail = rest.iter().fold(0u64, |tail, &byte| tail << 8 | u64::from(byte));
        let words = words.iter().map(|word| u64::from_le_bytes(*word));
        for word in words.chain([tail, bytes.len() as u64]) {
            self.0 = (self.0 ^ word).wrapping_mul(Self::PRIME);
            self.0 ^= self.0 >> 29;
        }
    }

    /// The hash.
    pub fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(images: usize) -> HostFeatures {
        let tokens: Vec<f32> = (0..images * 6 * 3).map(|at| at as f32).collect();
        HostFeatures::new(images, Grid::new(2, 3), 3, vec![5], vec![tokens])
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        assert!(features(2).check().is_ok());
        let said = |features: HostFeatures| features.check().unwrap_err().to_string();
        let mut short = features(2);
        short.tokens[0].pop();
        assert!(said(short).contains("layer 5"));
        let mut infinite = features(2);
        infinite.tokens[0][7] = f32::NAN;
        assert!(said(infinite).contains("NaN at position 7"));
        assert!(said(features(2).with_class_tokens(2, vec![0.0; 3])).contains("class tokens"));
        assert!(said(features(2).with_content(vec![1])).contains("hashes"));
        assert!(said(features(2).with_left_out(vec![false; 11])).contains("left out"));
        let nothing_left = [vec![false, true, true, true, true, true], vec![true; 6]].concat();
        assert!(said(features(2).with_left_out(nothing_left)).contains("image 1: found all 6"));
        let mut none = HostFeatures::new(2, Grid::new(2, 3), 0, vec![5], vec![vec![]]);
        assert!(said(none).contains("width"));
        none = features(2);
        none.grid = Grid::new(0, 3);
        assert!(said(none).contains("0x3"));
        // The product of these sizes wraps to 0, the number of values there are.
        let mut huge = HostFeatures::new(1 << 32, Grid::new(1 << 31, 2), 1, vec![0], vec![vec![]]);
        huge.tokens[0].clear();
        assert!(said(huge).contains("2^64"));
    }

    #[test]
    fn equal_images_have_equal_content_and_others_do_not() {
        let mut twice = features(3);
        let (first, rest) = twice.tokens[0].split_at_mut(18);
        rest[18..].copy_from_slice(first);
        let content = twice.with_known_content().content;
        assert_eq!(content[0], content[2]);
        assert_ne!(content[0], content[1]);
        let hash = |parts: &[&[u8]]| {
            let mut hash = ContentHash::default();
            parts.iter().for_each(|part| hash.add(part));
            hash.finish()
        };
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[&[0; 8]]), hash(&[&[0; 16]]));
    }

    #[test]
    fn a_query_does_not_see_itself_and_must_see_something() {
        assert_eq!(unseen(&[1, 2, 9], &[2, 1, 2]).unwrap(), [vec![1], vec![0, 2], vec![]]);
        assert!(unseen(&[1], &[]).unwrap_err().to_string().contains("none"));
        assert!(unseen(&[3, 7], &[7, 7]).unwrap_err().to_string().contains("query 1"));
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        let said = |other: HostFeatures| check_alike(&features(2), &other).unwrap_err().to_string();
        assert!(check_alike(&features(2), &features(5)).is_ok());
        let mut turned = features(2);
        turned.grid = Grid::new(3, 2);
        let text = said(turned);
        assert!(text.contains("2x3") && text.contains("3x2"), "{text}");
        let mut layers = features(2);
        layers.layers = vec![2];
        let text = said(layers);
        assert!(text.contains("found 5") && text.contains("expected 2"), "{text}");
        let mut wide = features(2);
        wide.width = 4;
        assert!(said(wide).contains("token width"));
    }
}
