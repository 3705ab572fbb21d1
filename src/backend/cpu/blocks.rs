//! Blocks of one set on the CPU: the pairs of two runs of images, and scores from a whole table.

use std::sync::Mutex;
use std::sync::atomic::AtomicU32;

use rayon::prelude::*;

use super::centred::Centred;
use super::patch_scores::{Scratch, TILE_IMAGES, best_cosines, mean_of_lowest, put, store, take};
use super::sides::left_out_of;
use crate::backend::HostFeatures;
use crate::backend::blocks::{BestCosines, Pairs, QueryTable, Run};
use crate::progress::go_on;
use crate::scoring::MutualScoring;
use crate::scoring::schedule::Schedule;
use crate::simd::Way;
use crate::{Progress, Result};

/// See [`Backend::best_cosines`](crate::backend::Backend::best_cosines). The runs have been checked.
pub fn of_pairs(
    pairs: &Pairs<'_, HostFeatures>,
    scoring: &MutualScoring,
    way: Way,
    progress: &dyn Progress,
) -> Result<BestCosines> {
    let degrees = &scoring.degrees;
    let (rows, columns) = (&pairs.rows, pairs.columns.as_ref());
    let (n, m) = pairs.sizes();
    let (patches, grid) = (rows.features.grid.patches(), rows.features.grid);
    let alone = columns.is_none();
    let (of_rows, of_columns) = pairs.ways();
    let room = |wanted: bool| -> Vec<AtomicU32> {
        let cells = if wanted { degrees.len() * n * m * patches } else { 0 };
        (0..cells).into_par_iter().map(|_| AtomicU32::new(0)).collect()
    };
    let (row_table, column_table) = (room(of_rows), room(of_columns));
    let side = |run: &Run<'_, HostFeatures>| Centred::new(run.features, degrees, way);
    let fill = |side: &mut Centred, run: &Run<'_, HostFeatures>| {
        side.fill_run(run.features, run.images.clone(), run.layer, way.arch);
    };
    let mut left = side(rows).for_images(n).with_tokens();
    let mut right = None;
    match columns {
        None => left = left.with_panels(),
        Some(columns) => right = Some(side(columns).for_images(m).with_panels()),
    }
    fill(&mut left, rows);
    if let (Some(right), Some(columns)) = (&mut right, columns) {
        fill(right, columns);
    }
    let right = right.as_ref().unwrap_or(&left);
    let schedule = if alone { Schedule::others(n) } else { Schedule::set(n, m) };
    let schedule = schedule.in_pieces(TILE_IMAGES, TILE_IMAGES);
    let chunks = schedule.groups().flat_map(|group| schedule.chunks(group, (0, 1)));
    let all: Vec<(usize, usize)> = chunks.flat_map(|chunk| chunk.pairs()).collect();
    let scratch: Mutex<Vec<Scratch>> = Mutex::new(Vec::new());
    let marks = |run: &Run<'_, HostFeatures>, image: usize| run.images.start + image;
    all.into_par_iter().try_for_each(|(i, j)| {
        go_on(progress)?;
        let mut mine = take(&scratch).unwrap_or_else(|| Scratch::new(way.arch, grid, degrees));
        let of = columns.unwrap_or(rows);
        let marks =
            (left_out_of(rows.features, marks(rows, i)), left_out_of(of.features, marks(of, j)));
        best_cosines((&left, i), (right, j), marks, alone || of_columns, &mut mine);
        for degree in 0..degrees.len() {
            if of_rows {
                store(cells(&row_table, (degree * n + i) * m + j, patches), &mine.rows[degree]);
            }
            if alone {
                store(cells(&row_table, (degree * n + j) * m + i, patches), &mine.columns[degree]);
            }
            if of_columns {
                store(
                    cells(&column_table, (degree * m + j) * n + i, patches),
                    &mine.columns[degree],
                );
            }
        }
        put(&scratch, mine);
        progress.advance(1);
        Ok(())
    })?;
    let bits = |table: Vec<AtomicU32>| table.into_iter().map(AtomicU32::into_inner).collect();
    Ok(BestCosines { of_rows: bits(row_table), of_columns: bits(column_table) })
}

fn cells(table: &[AtomicU32], row: usize, patches: usize) -> &[AtomicU32] {
    &table[row * patches..][..patches]
}

/// `[R, n, L]`, see [`Backend::scores_of_table`](crate::backend::Backend::scores_of_table). The table has been checked.
pub fn scores_of_table(table: &QueryTable<'_>, scoring: &MutualScoring) -> Vec<f32> {
    let (queries, all, patches) = (table.queries.len(), table.images, table.grid.patches());
    let mut scores = vec![0.0f32; scoring.degrees.len() * queries * patches];
    scores.par_chunks_exact_mut(patches).enumerate().for_each(|(at, scores)| {
        let itself = table.queries.start + at % queries;
        let seen: Vec<usize> = (0..all).filter(|&image| image != itself).collect();
        let row = |image: usize| &table.cosines[(at * all + image) * patches..][..patches];
        let bits = |image: usize, patch: usize| row(image)[patch];
        mean_of_lowest(&seen, bits, scoring.ranks(seen.len()), scores);
        let marks = table.left_out.get(at % queries * patches..).unwrap_or_default();
        for (score, _) in scores.iter_mut().zip(marks).filter(|(_, out)| **out) {
            *score = 0.0;
        }
    });
    scores
}
