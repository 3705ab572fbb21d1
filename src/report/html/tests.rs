use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::image::RgbImage;

const HOSTILE: &str = "<script>\"x\"</script>&'\u{202e}gnp.png";

fn image(path: impl Into<PathBuf>, score: f64) -> ReportImage {
    let mut image = ReportImage::new(path, "c", score, score as f32);
    image.threshold = 0.5;
    image
}

fn page(images: Vec<ReportImage>) -> ReportPage {
    let mut page = ReportPage::new("t & <t>");
    page.classes = vec![ReportClass::new("c", Some(0.5), "rule", (0.0, 1.0))];
    page.images = images;
    page
}

fn written(page: &ReportPage) -> String {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("report.html");
    write_report(&path, page).expect("write");
    std::fs::read_to_string(&path).expect("read")
}

/// The text between two marks.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let rest = text.split_once(from).expect(from).1;
    rest.split_once(to).expect(to).0
}

/// Any pixels, different for each seed and rough enough that nothing compresses them.
fn noise(width: usize, height: usize, seed: u32) -> RgbImage {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let data = (0..width * height * 3).map(|_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    });
    RgbImage { width, height, data: data.collect() }
}

#[test]
fn hostile_names_stay_text() {
    let mut hostile = image(format!("a/{HOSTILE}"), 0.9);
    hostile.regions = vec![vec![[0.25, -1.0], [0.5, f32::NAN], [2.0, 1.0]]];
    let mut page = page(vec![hostile]);
    page.settings = vec![(HOSTILE.into(), HOSTILE.into())];
    page.notes = vec![HOSTILE.into()];
    page.made_by = HOSTILE.into();
    page.title = HOSTILE.into();
    page.classes[0].rule = HOSTILE.into();
    page.classes[0].name = HOSTILE.into();
    page.images[0].class = HOSTILE.into();
    let text = written(&page);
    // One script and its end, and nothing that came from outside opens a tag or ends an attribute.
    assert_eq!(text.matches("<script").count(), 1);
    assert_eq!(text.matches("</script").count(), 1);
    assert!(!text.contains("\"x\"") && !text.contains("&'"), "a bare quote or ampersand");
    assert!(text.contains("&lt;script&gt;&quot;x&quot;&lt;/script&gt;&amp;'\u{fffd}gnp.png"));
    // What a review calls the image is the whole name, as JSON, unchanged but for the escaping of HTML.
    let path = between(&text, "data-path=\"", "\"");
    let path = path
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&amp;", "&");
    let path: String = serde_json::from_str(&path).expect("JSON");
    assert_eq!(path, format!("a/{HOSTILE}"));
    assert!(text.contains("points=\"0.2500,0.0000 0.5000,0.0000 1.0000,1.0000\""));
}

#[cfg(unix)]
#[test]
fn names_that_are_no_text_are_shown_all_the_same() {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::OsStr::from_bytes(b"a\xff\r\n.png");
    let text = written(&page(vec![image(path, 0.9)]));
    assert!(text.contains("data-path=\"&quot;a\u{fffd}\\r\\n.png&quot;\""));
    assert!(text.contains("<bdi class=\"file\">a\u{fffd}\u{fffd}\u{fffd}.png</bdi>"));
}

#[test]
fn the_policy_lets_this_style_and_this_script_run_and_nothing_else() {
    let text = written(&page(vec![image("a.png", 0.9)]));
    let policy = between(&text, "http-equiv=\"Content-Security-Policy\" content=\"", "\"");
    let style = between(&text, "<style>", "</style>");
    let script = between(&text, "<script>", "</script>");
    let hash =
        |text: &str| STANDARD.encode(<sha2::Sha256 as sha2::Digest>::digest(text.as_bytes()));
    assert!(policy.contains(&format!("style-src 'sha256-{}'", hash(style))), "{policy}");
    assert!(policy.contains(&format!("script-src 'sha256-{}'", hash(script))), "{policy}");
    assert!(policy.starts_with("default-src 'none'; img-src data:; "), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    // The policy stands before what it is to hold, and there is nothing that it would have to refuse.
    assert!(text.find("http-equiv") < text.find("<style"));
    for word in ["style=", "onclick", "onload", "http://www.", "https://"] {
        let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains(word), "{word}");
    }
    // Text that would end its element before its time.
    assert!(!page::SCRIPT.contains("</") && !style.contains('<'));
    assert!(page::SCRIPT.lines().count() <= 400);
    assert_eq!(page::hash(""), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
}

#[test]
fn the_worst_come_first_and_the_rest_still_counts() {
    let text =
        written(&page(vec![image("low.png", 0.1), image("high.png", 0.9), image("mid.png", 0.6)]));
    let at = |name: &str| {
        text.find(&format!("Image {name}"))
            .or_else(|| text.find(&format!("{name}, ")))
            .expect("there")
    };
    assert!(at("high.png") < at("mid.png") && at("mid.png") < at("low.png"));
    assert!(
        text.contains("<b id=\"ng-count\">2 NG</b>") || text.contains("id=\"ng-count\">2</b>"),
        "count"
    );
    let many: Vec<ReportImage> =
        (0..PAGE_IMAGES + 2).map(|at| image(format!("{at}.png"), at as f64 / 1e4)).collect();
    let text = written(&page(many));
    assert_eq!(text.matches("<article").count(), PAGE_IMAGES);
    assert!(text.contains("the other 2 count"));
    let rest = between(&text, "data-rest=\"", "\"");
    let rest: Vec<f64> = rest.split(' ').map(|number| number.parse().expect("number")).collect();
    assert_eq!(rest, [f64::from(0.0001f32), 0.0, 0.0, 0.0]);
}

/// A rule may put the threshold on a score: the script has to see the two as equal, which the few digits of an f32 are not.
#[test]
fn a_score_on_the_threshold_reads_as_equal() {
    let mut on = image("a.png", 0.284_645_62);
    on.threshold = f64::from(on.raw_score);
    assert!(!on.is_defective());
    let text = written(&page(vec![on]));
    let article = between(&text, "<article", ">");
    let number =
        |name: &str| between(article, &format!("{name}=\""), "\"").parse::<f64>().expect(name);
    assert_eq!(number("data-raw"), number("data-threshold"));
}

#[test]
fn two_hundred_of_the_worst_pictures_stay_below_twenty_megabytes() {
    let pictures = ReportPictures::new(Path::new("report.html"), INLINE_IMAGES);
    let (map, size) = (noise(96, 96, 7), ImageSize::square(96));
    let map: Vec<f32> = map.data.chunks(3).map(|pixel| f32::from(pixel[0]) / 255.0).collect();
    // Noise is what compresses least; all images are one, for time's sake.
    let (picture, heat) =
        pictures.make(0, &noise(448, 448, 1), &map, size, (0.0, 1.0)).expect("pictures");
    assert!(picture.source.starts_with("data:image/jpeg;base64,"));
    assert!(heat.source.starts_with("data:image/png;base64,"));
    let images = (0..INLINE_IMAGES)
        .map(|at| ReportImage {
            picture: picture.clone(),
            heat: heat.clone(),
            regions: vec![vec![[0.5, 0.5]; 64]; 4],
            ..image(format!("{at}-{}.png", "n".repeat(200)), 0.5)
        })
        .collect();
    let length = written(&page(images)).len();
    assert!(length < 20_000_000, "{length} bytes");
    assert!(length > 10_000_000, "{length} bytes: the pictures are not what was meant to be tried");
}

#[test]
fn many_pictures_lie_in_a_folder_of_their_own() {
    let folder = tempfile::tempdir().expect("folder");
    let report = folder.path().join("my report.html");
    let pictures = ReportPictures::new(&report, INLINE_IMAGES + 1);
    let (picture, heat) = pictures
        .make(12, &noise(30, 20, 1), &[0.0, 1.0], ImageSize::new(1, 2), (0.0, 1.0))
        .expect("pictures");
    assert_eq!(picture.source, "my%20report_files/000012.jpg");
    assert_eq!(heat.source, "my%20report_files/000012.png");
    let beside = folder.path().join("my report_files");
    assert!(beside.join("000012.jpg").is_file() && beside.join("000012.png").is_file());
    let text = written(&page(vec![ReportImage { picture, heat, ..image("a.png", 0.9) }]));
    assert!(text.contains("img-src data: 'self' file:;") && text.contains("loading=\"lazy\""));
    std::fs::write(beside.join("mine.jpg"), b"").expect("write");
    // Those of the page stay, as does what nobody here made.
    pictures.remove_stale(&report, 13).expect("remove");
    assert_eq!(std::fs::read_dir(&beside).expect("list").count(), 3);
    let inside = ReportPictures::new(&report, 1);
    inside.remove_stale(&report, 1).expect("remove");
    assert_eq!(std::fs::read_dir(&beside).expect("list").count(), 1);
    std::fs::remove_file(beside.join("mine.jpg")).expect("remove");
    inside.remove_stale(&report, 1).expect("remove");
    assert!(!beside.exists());
}

#[test]
fn a_heat_map_is_clear_where_nothing_is_and_lies_the_right_way() {
    let pictures = ReportPictures::new(Path::new("report.html"), 1);
    // Hot at the right end of the upper row.
    let map = [0.2, 0.2, 0.9, 0.2, 0.2, 0.2];
    let (picture, heat) = pictures
        .make(0, &noise(60, 40, 1), &map, ImageSize::new(2, 3), (0.3, 0.9))
        .expect("pictures");
    let decode = |source: &str| {
        let bytes = STANDARD.decode(source.split_once(',').expect("data").1).expect("base64");
        ::image::load_from_memory(&bytes).expect("image").to_rgba8()
    };
    assert_eq!(decode(&picture.source).dimensions(), (60, 40));
    let heat = decode(&heat.source);
    assert_eq!(heat.dimensions(), (3, 2));
    let alpha: Vec<u8> = heat.pixels().map(|pixel| pixel.0[3]).collect();
    assert_eq!(alpha, [0, 0, 255, 0, 0, 0]);
}

#[test]
fn pictures_keep_the_file_s_proportions() {
    for (file, size) in [
        ((4000, 3000), (336, 448)),
        ((300, 200), (200, 300)),
        ((1000, 4000), (448, 112)),
        ((100_000, 1), (1, 448)),
        ((0, 0), (1, 1)),
    ] {
        assert_eq!(ReportPictures::size_of(file), ImageSize::new(size.0, size.1), "{file:?}");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("report.html");
    let refused = |page: &ReportPage| write_report(&path, page).expect_err("refused").to_string();
    assert!(refused(&page(Vec::new())).contains("images of a report"));
    let mut other = page(vec![image("a.png", 0.1)]);
    other.images[0].class = "d".into();
    assert!(refused(&other).contains("`d` of a.png"));
    let mut empty = page(vec![image("a.png", 0.1)]);
    empty.classes.push(ReportClass::new("e", None, "r", (0.0, 1.0)));
    assert!(refused(&empty).contains("`e`"));
    assert!(refused(&page(vec![image("a.png", f64::NAN)])).contains("NaN"));
    assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 0);
    let pictures = ReportPictures::new(&path, 1);
    let size = ImageSize::square(2);
    assert!(pictures.make(0, &noise(2, 2, 1), &[0.0; 3], size, (0.0, 1.0)).is_err());
    let short = RgbImage { width: 2, height: 2, data: vec![0; 11] };
    assert!(pictures.make(0, &short, &[0.0; 4], size, (0.0, 1.0)).is_err());
}
