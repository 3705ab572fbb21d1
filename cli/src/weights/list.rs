//! `musc-run weights list`: the table of all published weights, with what is on this machine.

use musc::Result;
use musc::model::locate::cached;
use musc::model::{HubCache, PUBLISHED, Published};
use serde_json::{Value, json};

use crate::args::WeightsListArgs;
use crate::embedded::{BUILT_IN_BACKBONE, built_in_weights};
use crate::shell::out;

/// Runs the command.
pub fn list(args: WeightsListArgs) -> Result<()> {
    let cache = HubCache::of_environment();
    if args.messages.json {
        let rows: Vec<Value> = PUBLISHED.iter().map(|row| document(row, cache.as_ref())).collect();
        let root = cache.as_ref().map(|cache| cache.root().display().to_string());
        return out::print_json(
            &json!({ "built_in": built_in_weights().map(|_| BUILT_IN_BACKBONE), "cache": root, "weights": rows }),
        );
    }
    let heading =
        ["backbone", "pretrained", "repository", "scheme", "file", "size", "licence", "cached"];
    let mut table = vec![heading.map(String::from)];
    for row in PUBLISHED {
        let cached = cached(cache.as_ref(), row).is_some();
        table.push([
            row.backbone.into(),
            row.pretrained.into(),
            row.repository.into(),
            row.scheme.letter().into(),
            row.file.into(),
            row.size(),
            row.licence.into(),
            if cached { "yes" } else { "–" }.into(),
        ]);
    }
    let mut text = columns(&table);
    text.push_str(&match built_in_weights() {
        Some(weights) => format!(
            "\nbuilt in: {BUILT_IN_BACKBONE} ({} MB, f16, Apache-2.0)\n",
            weights.len() / 1_000_000
        ),
        None => String::from("\nbuilt in: none\n"),
    });
    if let Some(cache) = cache {
        text.push_str(&format!("cache:    {}\n", cache.root().display()));
    }
    out::print(&text)
}

fn document(row: &Published, cache: Option<&HubCache>) -> Value {
    json!({
        "backbone": row.backbone,
        "pretrained": if row.pretrained.is_empty() { None } else { Some(row.pretrained) },
        "repository": row.repository,
        "scheme": row.scheme.letter().to_string(),
        "file": row.file,
        "megabytes": row.megabytes,
        "licence": row.licence,
        "cached": cached(cache, row).map(|path| path.display().to_string()),
    })
}

/// Lines with their cells under each other.
fn columns<const N: usize>(table: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|column| {
        table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in table {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
