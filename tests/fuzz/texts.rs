//! Texts: lists of images, VisA's table, PTX.

use std::path::Path;

use musc::backend::cuda::kernels::KERNELS;
use musc::dataset::{
    ClassSelection, DatasetKind, FolderOptions, Mask, Sample, collect, labels_of, load,
};

use crate::memory::alone;
use crate::mutate::{Numbers, mutate};
use crate::rounds::fuzz;

/// Empty files of these names: listing opens none.
fn files(root: &Path, names: &[&str]) {
    for name in names {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        std::fs::write(path, b"").expect("write");
    }
}

/// A refusal names the damaged file or what it names; it is no dump of the file.
fn said(reason: &musc::Error) -> bool {
    let said = reason.to_string();
    assert!(!said.is_empty() && said.len() < 1 << 16, "a message of {} bytes", said.len());
    false
}

#[test]
fn lists_of_images() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("folder");
    files(folder.path(), &["a.png", "b.png", "deep/c.jpg"]);
    let list = folder.path().join("fuzzed.txt");
    let seeds =
        [b"a.png\nb.png\ndeep/c.jpg\n".to_vec(), b"\xef\xbb\xbfa.png\r\n\r\nb.png".to_vec()];
    let pieces: [&[u8]; 10] =
        [b"\n", b"\r", b"\0", b"..", b"/", b"*", b"[", b"{", b"\xff", b"deep"];
    let change = |bytes: &mut Vec<u8>, numbers: &mut Numbers| mutate(bytes, numbers, &pieces);
    let input = [format!("@{}", list.display())];
    fuzz("lists", &seeds, 64, 1 << 20, change, |bytes| {
        std::fs::write(&list, bytes).expect("write");
        match collect(&input, &FolderOptions::default()) {
            Ok(category) => {
                assert!(!category.samples.is_empty());
                true
            }
            Err(reason) => said(&reason),
        }
    });
}

#[test]
fn labels_of_a_review() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("folder");
    let table = folder.path().join("review.csv");
    let sample = |name: &str| Sample::new(name, "c", "", None, Mask::Unknown);
    let samples = ["a.png", "=b.png", "c,d.png"].map(sample);
    let seeds = [
        b"path,label,review\na.png,1,NG\n'=b.png,0,OK\n\"c,d.png\",,unsure\n".to_vec(),
        b"\xef\xbb\xbfreview,path\r\nOK,a.png\r\n".to_vec(),
    ];
    let pieces: [&[u8]; 10] =
        [b"\n", b"\r", b"\0", b"'", b"\"", b",", b"\xff", b"path", b"NG", b".."];
    let change = |bytes: &mut Vec<u8>, numbers: &mut Numbers| mutate(bytes, numbers, &pieces);
    fuzz("reviews", &seeds, 64, 1 << 20, change, |bytes| {
        std::fs::write(&table, bytes).expect("write");
        match labels_of(&samples, &table) {
            Ok(labels) => {
                assert_eq!(labels.len(), 3);
                true
            }
            Err(reason) => said(&reason),
        }
    });
}

#[test]
fn table_of_visa() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path();
    let (normal, bad) = ("candle/Data/Images/Normal/0.JPG", "candle/Data/Images/Anomaly/0.JPG");
    files(root, &[normal, bad, "candle/Data/Masks/Anomaly/0.png", "split_csv/1cls.csv"]);
    let seeds = [format!(
        "object,split,label,image,mask\ncandle,train,normal,{normal},\ncandle,test,normal,{normal},\n\
         candle,test,anomaly,{bad},candle/Data/Masks/Anomaly/0.png\n"
    )
    .into_bytes()];
    let pieces: [&[u8]; 10] =
        [b",", b"\n", b"\"", b"\0", b"\xff", b"test", b"anomaly", b"../", b",,,,,,", b"candle"];
    let change = |bytes: &mut Vec<u8>, numbers: &mut Numbers| mutate(bytes, numbers, &pieces);
    let table = root.join("split_csv/1cls.csv");
    let classes = ClassSelection::from_words(&["candle"]);
    fuzz("VisA tables", &seeds, 256, 1 << 20, change, |bytes| {
        std::fs::write(&table, bytes).expect("write");
        match load(DatasetKind::Visa, root, &classes) {
            Ok(categories) => {
                assert_eq!(categories.len(), 1);
                true
            }
            Err(reason) => said(&reason),
        }
    });
}

#[test]
fn ptx_text() {
    let _alone = alone();
    let seeds: Vec<Vec<u8>> = ["layer_norm", "lnamd", "interval_mean"]
        .map(|stem| {
            let (.., text) = KERNELS.iter().find(|(name, ..)| *name == stem).expect(stem);
            // Whole files of tens of thousands of lines would leave time for few: the first entry is enough.
            let end = text.find("\n}\n").expect("an entry") + 3;
            text.as_bytes()[..end].to_vec()
        })
        .into();
    let pieces: [&[u8]; 24] = [
        b".reg .b64 %rd<4294967295>;",
        b".shared .align 16 .b8 x[18446744073709551615];",
        b".local .align 4 .b8 y[9223372036854775807];",
        b".param .u64 p",
        b"{",
        b"}",
        b"(",
        b")",
        b"[",
        b"]",
        b"<",
        b",",
        b";",
        b"@%p1 ",
        b"bra $L__BB0_1;",
        b"0x",
        b"0f7FFFFFFF",
        b"-9223372036854775808",
        b"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 ",
        b"//",
        b"/*",
        b".file 1 \"",
        b".loc 1 4294967295 0",
        b"\xc3\xa9",
    ];
    let change = |bytes: &mut Vec<u8>, numbers: &mut Numbers| mutate(bytes, numbers, &pieces);
    fuzz("PTX", &seeds, 1024, 1 << 24, change, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        match ptxsim::Module::parse("fuzzed", &text) {
            Ok(module) => {
                assert!(module.entries().iter().all(|entry| !entry.name.is_empty()));
                true
            }
            Err(reason) => {
                let said = reason.to_string();
                assert!(said.contains("fuzzed") && said.len() < 1 << 16, "{said}");
                false
            }
        }
    });
}
