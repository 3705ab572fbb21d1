//! Tables as text that is Markdown at the same time.

/// A table: a head, then rows of as many cells. The first column is flush left, the others right.
pub fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..head.len())
        .map(|at| {
            let cells = rows.iter().filter_map(|row| row.get(at)).chain(head.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
        })
        .collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(at, (cell, &width))| {
                    if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let rule: Vec<String> = widths
        .iter()
        .enumerate()
        .map(
            |(at, &width)| {
                if at == 0 { "-".repeat(width) } else { format!("{}:", "-".repeat(width - 1)) }
            },
        )
        .collect();
    let mut text = line(head) + &line(&rule);
    for row in rows {
        text += &line(row);
    }
    text
}

/// Words as cells.
pub fn cells<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(String::from).to_vec()
}

/// A share as a percentage with one decimal, never rounded up to 100.
pub fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    if text == "100.0" && share < 1.0 { String::from(">99.9") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let text =
            table(&cells(["kernel", "µs"]), &[cells(["a", "1.0"]), cells(["longer name", "22"])]);
        assert_eq!(
            text,
            "| kernel      |  µs |\n| ----------- | --: |\n| a           | 1.0 |\n| longer name |  22 |\n"
        );
        assert_eq!((percent(0.99999).as_str(), percent(1.0).as_str()), (">99.9", "100.0"));
    }
}
