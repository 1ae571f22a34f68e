//! What must hold, measured: each line's worst median over all arrays it is about, against the fastest path of the
//! peer. Ratios are those of [`narrows::Target::Speed`], which is what somebody takes who compares coders by the
//! second; beside each stand the default target's, and what either costs in bytes.

use crate::frames;
use crate::results::{Promise, Row, Way};
use Way::{Decode, Encode};

/// Arrays of "100 k" symbols: whole images come to a few more.
const MIDDLE: std::ops::Range<usize> = 50_000..200_000;
const LARGE: usize = 10_000_000;

/// Which arrays a ratio is about.
#[derive(Clone, Copy)]
struct Arrays {
    few: bool,
    many: bool,
    large: bool,
}

const FEW: Arrays = Arrays { few: true, many: false, large: false };
const ALL: Arrays = Arrays { few: true, many: true, large: false };
const MANY: Arrays = Arrays { few: false, many: true, large: false };
const LARGE_ONES: Arrays = Arrays { few: true, many: true, large: true };

impl Arrays {
    fn holds(self, row: &Row) -> bool {
        let length = if self.large { row.n >= LARGE } else { MIDDLE.contains(&row.n) };
        let alphabet = match row.alphabet {
            ..=16 => self.few,
            256 => self.many,
            _ => self.few && self.many,
        };
        length && alphabet
    }
}

/// One of our methods on one path.
#[derive(Clone, Copy)]
struct Ours(&'static str, &'static str);

/// Which rows of a peer count; the fastest of them is what we are measured against.
#[derive(Clone, Copy)]
enum Theirs {
    /// All of its paths, in both builds of htscodecs.
    Any(&'static str),
    /// Those of the build as it is released.
    Released(&'static str),
    /// Those whose name begins so.
    Path(&'static str, &'static str),
}

impl Theirs {
    fn holds(self, row: &Row) -> bool {
        !row.stored()
            && match self {
                Self::Any(coder) => row.coder == coder,
                Self::Released(coder) => row.coder == coder && !row.path.ends_with("gather"),
                Self::Path(coder, path) => row.coder == coder && row.path.starts_with(path),
            }
    }

    fn name(self) -> String {
        match self {
            Self::Any(coder) => coder.into(),
            Self::Released(coder) => format!("{coder} as released"),
            Self::Path(coder, path) => format!("{coder} {path}"),
        }
    }
}

const ORDER_0: Ours = Ours("narrows order-0 speed", "avx512");
const ORDER_0_AVX2: Ours = Ours("narrows order-0 speed", "avx2");
const CONTEXTS: Ours = Ours("narrows contexts speed", "avx512");
/// What names of coders at [`narrows::Target::Speed`] end in; without it, they are at the default target.
const SPEED: &str = " speed";
const PEER: &str = "htscodecs order-0";
const PEER_PACKED: &str = "htscodecs order-0 packed";
const PEER_1: &str = "htscodecs order-1";

/// All lines of the table.
pub fn lines(rows: &[Row]) -> Vec<Promise> {
    let mut lines = Vec::new();
    let way_bounds = |encode, decode| [(Encode, encode), (Decode, decode)];
    let order_0 = [Theirs::Any(PEER), Theirs::Released(PEER), Theirs::Any(PEER_PACKED)];
    for (arrays, encode, decode) in [(FEW, 5.0, 4.0), (MANY, 3.0, 2.3)] {
        for (way, bound) in way_bounds(encode, decode) {
            lines.push(ratio(rows, ORDER_0, &order_0, arrays, way, bound));
        }
    }
    lines.push(ratio(rows, ORDER_0, &order_0[..2], LARGE_ONES, Decode, 2.5));
    lines.push(ratio(rows, ORDER_0_AVX2, &[Theirs::Path(PEER, "avx2")], ALL, Decode, 2.0));
    for (way, bound) in way_bounds(3.0, 2.0) {
        let theirs = [Theirs::Any(PEER_1), Theirs::Released(PEER_1)];
        lines.push(ratio(rows, CONTEXTS, &theirs, ALL, way, bound));
    }
    lines.push(smaller(rows, CONTEXTS, PEER_1));
    for (theirs, bound) in [("constriction", 25.0), ("FSE", 8.0)] {
        lines.push(ratio(rows, ORDER_0, &[Theirs::Any(theirs)], ALL, Decode, bound));
    }
    for (name, n, encode, decode) in [
        ("f32 128x28x28 Q4 order-0", 100_352, 20.0, 15.0),
        ("f32 128x28x28 Q4 order-0 speed", 100_352, 20.0, 15.0),
        ("f32 128x28x28 Q4 contexts", 100_352, 90.0, 90.0),
        ("f32 128x28x28 Q4 contexts speed", 100_352, 90.0, 90.0),
        ("f32 32x8x8 profile", 2_048, 2.0, 2.0),
        ("f32 32x8x8 profile speed", 2_048, 2.0, 2.0),
    ] {
        lines.extend(way_bounds(encode, decode).map(|(way, bound)| microseconds(rows, name, n, way, bound)));
    }
    lines.push(size(rows));
    lines
}

fn name(way: Way) -> &'static str {
    if way == Encode { "encode" } else { "decode" }
}

/// A median, a best, and the array they are from.
type Found<'a> = (f64, f64, &'a String);

/// How many times as fast as theirs ours is on each array.
fn ratios<'a>(
    rows: &'a [Row],
    (coder, path): (&str, &str),
    theirs: Theirs,
    arrays: Arrays,
    way: Way,
) -> impl Iterator<Item = Found<'a>> {
    let here = move |row: &&Row| row.coder == coder && row.path == path && arrays.holds(row);
    rows.iter().filter(here).filter_map(move |ours| {
        let peers = rows.iter().filter(|row| row.same_array(ours) && theirs.holds(row));
        let times = peers.map(|row| (row.median(way), row.best(way)));
        let (median, best) = times.reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)))?;
        Some((median / ours.median(way), best / ours.best(way), &ours.data))
    })
}

/// The middle of numbers in any order.
fn median(mut all: Vec<f64>) -> Option<f64> {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}

/// Our size over entropy, on the arrays where a peer was measured too.
fn over_entropy(rows: &[Row], (coder, path): (&str, &str), arrays: Arrays) -> Option<f64> {
    let here = rows.iter().filter(|row| row.coder == coder && row.path == path && arrays.holds(row));
    here.map(|row| row.bytes as f64 / row.entropy_bytes).max_by(f64::total_cmp)
}

/// Ours against the first of theirs; beside it the others, and our other target.
fn ratio(rows: &[Row], ours: Ours, theirs: &[Theirs], arrays: Arrays, way: Way, bound: f64) -> Promise {
    let Ours(coder, path) = ours;
    let worst = |coder: &str, theirs| {
        ratios(rows, (coder, path), theirs, arrays, way).min_by(|a, b| a.0.total_cmp(&b.0))
    };
    let middle = |coder: &str| {
        median(ratios(rows, (coder, path), theirs[0], arrays, way).map(|(median, _, _)| median).collect())
    };
    let mut beside = Vec::new();
    beside.extend(middle(coder).map(|median| ("median of arrays".into(), median)));
    beside.extend(
        over_entropy(rows, (coder, path), arrays).map(|most| ("bytes over entropy, at most".into(), most)),
    );
    if let Some(smallest) = coder.strip_suffix(SPEED) {
        beside.extend(worst(smallest, theirs[0]).map(|(worst, _, _)| ("default target".into(), worst)));
        beside.extend(middle(smallest).map(|median| ("its median".into(), median)));
        let most = over_entropy(rows, (smallest, path), arrays);
        beside.extend(most.map(|most| ("its bytes over entropy".into(), most)));
    }
    for &other in &theirs[1..] {
        beside.extend(worst(coder, other).map(|(median, _, _)| (format!("vs {}", other.name()), median)));
    }
    let what = match (arrays.few, arrays.many, arrays.large) {
        (_, _, true) => "16 M symbols",
        (true, false, _) => "alphabet <= 16, 100 k",
        (false, true, _) => "alphabet 256, 100 k",
        _ => "any alphabet, 100 k",
    };
    let work = format!("{coder} {path} {} vs {}, {what}", name(way), theirs[0].name());
    Promise { beside, ..promise(work, bound, worst(coder, theirs[0]), |measured| measured >= bound) }
}

/// The largest of our sizes over theirs, both at order 1.
fn smaller(rows: &[Row], Ours(coder, path): Ours, theirs: &str) -> Promise {
    let here = rows.iter().filter(|row| row.coder == coder && row.path == path && ALL.holds(row));
    let ratios = here.filter_map(|ours| {
        let peers = rows.iter().filter(|row| row.same_array(ours) && row.coder == theirs);
        let ratio = ours.bytes as f64 / peers.map(|row| row.bytes).min()? as f64;
        Some((ratio, ratio, &ours.data))
    });
    let worst = ratios.max_by(|a, b| a.0.total_cmp(&b.0));
    promise(format!("{coder} bytes vs {theirs}, at most"), 1.0, worst, |measured| measured <= 1.0)
}

fn microseconds(rows: &[Row], data: &str, n: usize, way: Way, bound: f64) -> Promise {
    let here =
        |row: &&Row| row.coder == frames::CODER && row.path == "avx512" && row.data == data && row.n == n;
    let found = rows.iter().find(here).map(|row| (row.median(way) / 1e3, row.best(way) / 1e3, &row.data));
    promise(format!("{data}, whole {}, us at most", name(way)), bound, found, |measured| measured <= bound)
}

/// The largest of our sizes over the reference path's.
fn size(rows: &[Row]) -> Promise {
    let ours = rows.iter().filter(|row| row.coder.starts_with("narrows"));
    let ratios = ours.filter_map(|row| {
        let reference = rows
            .iter()
            .find(|other| other.same_array(row) && other.coder == row.coder && other.path == "reference")?;
        let ratio = row.bytes as f64 / reference.bytes as f64;
        Some((ratio, ratio, &row.data))
    });
    let worst = ratios.max_by(|a, b| a.0.total_cmp(&b.0));
    promise("bytes of any path vs the reference path, at most".into(), 1.0, worst, |measured| measured <= 1.0)
}

fn promise(work: String, bound: f64, worst: Option<Found<'_>>, met: impl Fn(f64) -> bool) -> Promise {
    Promise {
        work,
        bound,
        measured: worst.map(|(median, _, _)| median),
        measured_best: worst.map(|(_, best, _)| best),
        worst_on: worst.map(|(_, _, data)| data.clone()).unwrap_or_default(),
        beside: Vec::new(),
        met: worst.map(|(median, _, _)| met(median)),
    }
}
