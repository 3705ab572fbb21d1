//! Where the defect is: connected regions of an anomaly map, and a threshold for each map by the shape of its regions.
//!
//! Coordinates count from the outer corner of the first pixel, x to the right and y down: pixel (3, 5) covers 3..4 and 5..6.
//! Knows nothing of files, models or scores beyond the map.

mod contour;
mod mebin;
mod region;

pub use mebin::{MEBIN_SIDE, mebin, mebin_size};
pub use region::{Bounds, Peak, Region, regions};
