//! Large batches in subsets: the same images in each on any number of machines, whatever order they are listed in.

/// Deals images out to subsets of about `references` + 1, each a rising list of indices into `names`.
///
/// `names` are the images' paths relative to the batch, with `/` between folders on every system. The order in which they are
/// dealt is drawn by a hash of `seed` and the name, so that it depends on nothing else; images of one name keep the order in
/// which they are listed. There are ceil(N / (`references` + 1)) subsets, or fewer so that each holds at least two images;
/// their sizes differ by one at most. A single image is a subset of its own, no image none.
pub fn subsets(names: &[String], references: usize, seed: u64) -> Vec<Vec<usize>> {
    let count = names.len();
    if count == 0 {
        return Vec::new();
    }
    let parts = count.div_ceil(references.saturating_add(1)).clamp(1, (count / 2).max(1));
    let mut order: Vec<(u64, &str, usize)> = names
        .iter()
        .enumerate()
        .map(|(index, name)| (hash(seed, name), name.as_str(), index))
        .collect();
    order.sort_unstable();
    let mut subsets = vec![Vec::with_capacity(count.div_ceil(parts)); parts];
    for (turn, (_, _, index)) in order.into_iter().enumerate() {
        subsets[turn % parts].push(index);
    }
    for subset in &mut subsets {
        subset.sort_unstable();
    }
    subsets
}

/// FNV-1a of 64 bits over the seed's eight bytes (the lowest first) and the name's, mixed by the finaliser of SplitMix64
/// (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014), since FNV leaves names that differ in their
/// last letter close together.
fn hash(seed: u64, name: &str) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(name.bytes());
    let folded = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (folded ^ (folded >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|at| format!("lot {}/{at:04}.png", at % 7)).collect()
    }

    #[test]
    fn every_image_is_in_one_of_even_subsets() {
        for count in 2..=1000 {
            let names = names(count);
            for references in [1, 2, 3, 64, 200, 999, usize::MAX] {
                let subsets = subsets(&names, references, 5);
                let case = format!("{count} images, {references} references");
                let parts = count.div_ceil(references.saturating_add(1)).min(count / 2);
                assert_eq!(subsets.len(), parts, "{case}");
                let sizes = || subsets.iter().map(Vec::len);
                let (least, most) = (sizes().min().unwrap(), sizes().max().unwrap());
                assert!(least >= 2 && most - least <= 1, "{case}: {least} to {most}");
                assert!(subsets.iter().all(|subset| subset.is_sorted()), "{case}");
                let mut all = subsets.concat();
                all.sort_unstable();
                assert!(all.into_iter().eq(0..count), "{case}");
            }
        }
    }

    #[test]
    fn the_listing_s_order_does_not_matter() {
        let names = names(260);
        let grouped = |names: &[String], seed| -> BTreeSet<BTreeSet<String>> {
            let pick =
                |subset: Vec<usize>| subset.into_iter().map(|at| names[at].clone()).collect();
            subsets(names, 64, seed).into_iter().map(pick).collect()
        };
        let found = grouped(&names, 1);
        assert_eq!(found.len(), 4);
        let mut other = names.clone();
        other.reverse();
        assert_eq!(grouped(&other, 1), found);
        other.rotate_left(77);
        assert_eq!(grouped(&other, 1), found);
        assert_ne!(grouped(&names, 2), found);
        assert_ne!(grouped(&names, 1 << 40), found);
    }

    #[test]
    fn images_of_one_name_are_told_apart() {
        let same = vec![String::from("a.png"); 9];
        let subsets = subsets(&same, 2, 0);
        assert_eq!(subsets, [[0, 3, 6], [1, 4, 7], [2, 5, 8]]);
    }

    #[test]
    fn few_images_are_one_subset() {
        assert!(subsets(&[], 5, 0).is_empty());
        assert_eq!(subsets(&names(1), 5, 0), [[0]]);
        assert_eq!(subsets(&names(3), 0, 0), [[0, 1, 2]]);
    }

    #[test]
    fn the_hash_is_the_documented_one_for_ever() {
        // Worked out apart, in Python's integers.
        assert_eq!(hash(0, ""), 0x813f_0174_a236_7c13);
        assert_eq!(hash(7, "good/001.png"), 0xd1f1_c441_44d9_e5ac);
    }

    #[test]
    fn draws_are_as_good_as_shuffles() {
        // Of two kinds in a row, each subset of 50 gets 25 of the first kind: hypergeometric, a standard deviation of
        // sqrt(50 · 1/4 · 150/199) = 3.07 images. The four counts of a draw sum to 100, so that about 600 of the 800 are free:
        // the spread found is itself known to 3.07 / sqrt(2 · 600) = 0.09, and is allowed three times that.
        let names: Vec<String> = (0..200).map(|at| format!("{}/{at}", at / 100)).collect();
        let mut counts = Vec::new();
        for seed in 0..200 {
            counts.extend(
                subsets(&names, 49, seed)
                    .iter()
                    .map(|subset| subset.iter().filter(|&&at| at < 100).count() as f64),
            );
        }
        let spread = (counts.iter().map(|count| (count - 25.0).powi(2)).sum::<f64>()
            / counts.len() as f64)
            .sqrt();
        assert!((spread - 3.07).abs() < 0.27, "{spread}");
    }
}
