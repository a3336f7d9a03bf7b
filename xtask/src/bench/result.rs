//! What comes out of a row.

use super::rows::Row;
use super::runs::Sample;
use crate::exec::Result;

/// One row, and everyone's samples, or why there are none.
pub struct RowResult {
    pub row: Row,
    pub runs: Vec<(String, Result<Vec<Sample>>)>,
}
