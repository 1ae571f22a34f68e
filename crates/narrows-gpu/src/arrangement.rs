//! How many lanes and chunks, and which classes of neighbours: decided from the shape before a symbol is
//! known, so that every launch has its size before the first one starts.

use narrows::stream::{Geometry, MAX_LANES, bins};
use narrows::{Layout, Planes, Target};

/// Bytes that a chunk of 32 lanes costs: a first state of 4 bytes a lane, of which 3 are lost, and its
/// entry in the directory.
const BYTES_PER_CHUNK: f64 = 98.0;

/// The share of a payload that chunks may cost. A chain of rows is what a GPU waits for, so this is more than a
/// CPU needs.
const fn overhead(target: Target) -> f64 {
    match target {
        Target::Size => 0.025,
        Target::Latency | Target::Speed => 0.10,
    }
}

/// Rows and chunks for symbols expected to cost `rate` bits each.
///
/// A chunk of `R` rows of 32 symbols is `4 R rate` bytes and costs 98. In plane order it is a whole
/// number of planes, or of lines where that would be too long.
pub(crate) fn arrange(planes: &Planes, layout: Layout, rate: f64, target: Target) -> Geometry {
    let elements = planes.count() * planes.positions();
    let columns = match layout {
        Layout::Planes => planes.count(),
        // As long as the sequence can be.
        Layout::CsrJoint { rows } => 2 * elements + rows,
        _ => elements,
    };
    let lanes = 1 << columns.clamp(1, MAX_LANES).ilog2();
    let wanted = BYTES_PER_CHUNK * 8.0 / (MAX_LANES as f64 * overhead(target) * rate.max(0.05));
    let geometry = Geometry::new(planes, layout, lanes, 1);
    let geometry = if layout == Layout::Planes { geometry } else { Geometry { planes: columns, ..geometry } };
    let (positions, line) = (geometry.positions.max(1), geometry.line);
    let wanted = wanted.ceil() as usize;
    let rows = if wanted >= positions {
        (wanted / positions).max(1) * positions
    } else {
        wanted.div_ceil(line).min(positions / line) * line
    };
    Geometry { chunk_rows: rows.clamp(1, geometry.rows().max(1)), ..geometry }
}

/// Where the classes of the neighbours' sum begin, after the first: at sums of 1, and of 1, 2, 4, 7 and 12
/// sixteenths of the alphabet. Fixed, because merging classes tensor by tensor is a serial search.
pub(crate) fn class_starts(alphabet: usize) -> Vec<usize> {
    let (bins, shift) = bins(alphabet);
    let of_sixteenths = |n: usize| (n * alphabet).div_ceil(16) >> shift;
    let mut starts: Vec<usize> = [1].into_iter().chain([1, 2, 4, 7, 12].map(of_sixteenths)).collect();
    starts.sort_unstable();
    starts.dedup();
    starts.retain(|&start| (1..bins).contains(&start));
    starts
}

#[cfg(test)]
mod tests {
    use super::*;
    use narrows::Shape;

    fn planes(dims: &[usize], axis: usize) -> Planes {
        Planes::new(&Shape::new(dims).unwrap(), axis).unwrap()
    }

    #[test]
    fn a_chunk_is_whole_planes_or_whole_lines() {
        let features = planes(&[128, 28, 28], 0);
        let latency = arrange(&features, Layout::Planes, 2.0, Target::Latency);
        assert_eq!((latency.lanes, latency.chunk_rows, latency.chunks()), (32, 140, 23));
        let size = arrange(&planes(&[512, 7, 7], 0), Layout::Planes, 2.0, Target::Size);
        assert_eq!(size.chunk_rows % 49, 0);
        let natural = arrange(&features, Layout::Natural, 2.0, Target::Latency);
        assert_eq!((natural.lanes, natural.chunks()), (32, 26));
        for dims in [[1, 1, 1], [3, 5, 7], [33, 1, 9], [1, 4000, 1], [5, 1, 4000]] {
            for layout in [Layout::Planes, Layout::Natural] {
                let geometry = arrange(&planes(&dims, 0), layout, 1.0, Target::Latency);
                assert!(geometry.chunk_rows >= 1 && geometry.chunk_rows <= geometry.rows(), "{dims:?}");
                assert_eq!(geometry.symbols(), dims.iter().product());
            }
        }
    }

    #[test]
    fn classes_begin_at_ascending_bins_of_the_alphabet() {
        for alphabet in 2..=256 {
            let (bins, _) = bins(alphabet);
            let starts = class_starts(alphabet);
            assert!(!starts.is_empty() && starts.len() <= 7);
            assert!(starts.windows(2).all(|pair| pair[0] < pair[1]) && *starts.last().unwrap() < bins);
        }
        assert_eq!(class_starts(16), [1, 2, 4, 7, 12]);
    }
}
