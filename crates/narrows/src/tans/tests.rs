//! Every path against the reference, symbol for symbol, byte for byte and error for error.

use super::arrays::Arrays;
use super::chunk::{Chunk, Runs};
use super::lanes::Payload;
use super::spec::Machine;
use super::{
    ChunkEncoder, MAX_LANES, STATE_BITS, Scratch, decode, decode_by, encode, encode_by, encode_rows, rows,
    scalar,
};
use crate::cpu::Path;
use crate::layout::{Planes, Rows};
use crate::model::Table;
use crate::tensor::Shape;

/// A small generator (xorshift64*).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        ((self.bits() >> 32) as usize * bound) >> 32
    }
}

/// What is compared with the reference: a path, or the lane algorithms on plain arrays, which vectors also run.
#[derive(Clone, Copy, Debug)]
enum Way {
    On(Path),
    Arrays,
}

fn ways() -> impl Iterator<Item = Way> {
    paths().map(Way::On).chain([Way::Arrays])
}

fn array_encoder(runs: &Runs, machine: &Machine) -> ChunkEncoder {
    let _ = runs;
    if machine.bits > 8 || machine.steps.len() > encode_rows::MAX_ALPHABET {
        return scalar::encode_chunk;
    }
    |coded, runs, machine, backward, payload, lengths| {
        encode_rows::encode(Arrays, coded, runs, machine, backward, payload, lengths)
    }
}

fn paths() -> impl Iterator<Item = Path> {
    Path::ALL.into_iter().filter(|&path| path != Path::Reference && path.is_available())
}

/// Weights of `alphabet` symbols, of the kind that `kind` says.
fn weights(kind: usize, alphabet: usize, random: &mut Random) -> Vec<u32> {
    match kind {
        0 => vec![1; alphabet],
        1 => (0..alphabet).map(|s| 1 << (28 / (s + 1))).collect(),
        // One that is nearly all there is.
        2 => (0..alphabet).map(|s| if s == alphabet / 2 { 1 << 30 } else { u32::from(s % 3 == 0) }).collect(),
        _ => (0..alphabet).map(|_| random.below(1000) as u32).collect(),
    }
}

/// Symbols that the table has, half of them as often as it says, the others alike.
fn symbols(table: &Table, count: usize, random: &mut Random) -> Vec<u8> {
    let alphabet = table.frequencies().len();
    let present: Vec<u8> = (0..alphabet).filter(|&s| table.frequencies()[s] > 0).map(|s| s as u8).collect();
    let drawn = |random: &mut Random| {
        let slot = random.below(1 << table.bits()) as u16;
        (0..alphabet).rev().find(|&s| table.cumulative()[s] <= slot && table.frequencies()[s] > 0).unwrap()
            as u8
    };
    let spread = random.below(3);
    (0..count)
        .map(|i| match spread {
            0 => drawn(random),
            1 if i % 97 != 0 => drawn(random),
            _ => present[random.below(present.len())],
        })
        .collect()
}

struct Case {
    name: String,
    rows: Rows,
    chunk_rows: usize,
    machine: Machine,
    symbols: Vec<u8>,
    payload: Vec<u8>,
    lengths: Vec<u32>,
}

impl Case {
    /// Encoded on every path, which must agree.
    fn new(name: String, rows: Rows, chunk_rows: usize, table: &Table, symbols: Vec<u8>) -> Self {
        let mut machine = Machine::default();
        machine.set(table);
        let mut scratch = Scratch::default();
        let mut encoded = |way| {
            let (mut payload, mut lengths) = (vec![9], vec![7]);
            let order = (&rows, chunk_rows);
            let (out, ends) = (&mut payload, &mut lengths);
            match way {
                Way::On(path) => {
                    encode(path, &symbols, order, (table, &machine), &mut scratch, out, ends);
                }
                Way::Arrays => {
                    let encoder_of = |runs: &Runs| array_encoder(runs, &machine);
                    encode_by(encoder_of, &symbols, order, &machine, &mut scratch, out, ends);
                }
            }
            (payload.split_off(1), lengths.split_off(1))
        };
        let (payload, lengths) = encoded(Way::On(Path::Reference));
        for way in ways() {
            let (other, other_lengths) = encoded(way);
            assert_eq!(other_lengths, lengths, "{way:?} {name}");
            assert!(other == payload, "{way:?} {name}");
        }
        Self { name, rows, chunk_rows, machine, symbols, payload, lengths }
    }

    fn decode(&self, way: Way, payload: &[u8]) -> Result<Vec<u8>, (usize, &'static str)> {
        let mut decoded = vec![99; self.symbols.len()];
        let order = (&self.rows, self.chunk_rows);
        let (machine, lengths) = (&self.machine, &self.lengths);
        match (way, Payload::new(payload)) {
            (Way::Arrays, Some(vectors)) if machine.bits <= 8 => {
                let batch = |batch: &mut [Chunk<'_>]| rows::decode(Arrays, batch, machine, vectors);
                decode_by(batch, &mut decoded, order, machine.bits, payload, lengths)
            }
            (Way::Arrays, _) => return self.decode(Way::On(Path::Portable), payload),
            (Way::On(path), _) => decode(path, &mut decoded, order, machine, payload, lengths),
        }
        .map(|()| decoded)
    }

    fn check(&self, random: &mut Random) {
        for way in ways() {
            assert!(self.decode(way, &self.payload).as_ref() == Ok(&self.symbols), "{way:?} {}", self.name);
        }
        let mut changed = self.payload.clone();
        for round in 0..6 {
            if changed.is_empty() {
                return;
            }
            match round {
                0..3 => {
                    let at = random.below(changed.len());
                    changed[at] ^= 1 << random.below(8);
                }
                3 => changed.fill(0xff),
                4 => changed.iter_mut().for_each(|byte| *byte = random.bits() as u8),
                _ => changed.fill(0),
            }
            let expected = self.decode(Way::On(Path::Reference), &changed);
            for way in ways() {
                assert!(self.decode(way, &changed) == expected, "{way:?} {} {round}", self.name);
            }
        }
    }
}

#[test]
fn every_path_is_the_reference_in_natural_order() {
    let mut random = Random(7);
    let mut table = Table::default();
    for bits in STATE_BITS {
        for alphabet in (2..=17).chain([31, 64, 65, 200, 256]) {
            for kind in 0..4 {
                if table.normalize(&weights(kind, alphabet, &mut random), bits).is_err() {
                    continue;
                }
                let lanes = 1 << random.below(7);
                let count = random.below(3000) + 1;
                let rows = Rows::natural(count, lanes);
                let chunk_rows = random.below(rows.count()) + 1;
                let chunk_rows = if random.below(2) == 0 { rows.count() } else { chunk_rows };
                let symbols = symbols(&table, count, &mut random);
                let name =
                    format!("{bits} bits {alphabet} of kind {kind}, {count} in {lanes} by {chunk_rows}");
                Case::new(name, rows, chunk_rows, &table, symbols).check(&mut random);
            }
        }
    }
}

#[test]
fn every_lane_count_and_tail_is_the_reference() {
    let mut random = Random(8);
    let mut table = Table::default();
    for bits in [6, 7, 8, 10] {
        table.normalize(&[700, 40, 30, 1], bits).unwrap();
        for lanes in (0..7).map(|log2| 1 << log2) {
            for tail in 0..lanes {
                let count = lanes * (5 + random.below(9)) + tail;
                let symbols = symbols(&table, count, &mut random);
                let rows = Rows::natural(count, lanes);
                let name = format!("{bits} bits, {count} in {lanes} lanes");
                Case::new(name, rows, rows.count(), &table, symbols).check(&mut random);
            }
        }
    }
}

#[test]
fn every_path_is_the_reference_in_plane_order_with_chunks_that_cut_planes() {
    let mut random = Random(9);
    let mut table = Table::default();
    for round in 0..300 {
        let bits = 6 + random.below(4) as u32;
        table.normalize(&weights(3, 7, &mut random), bits).unwrap();
        let dims = [1 + random.below(150), 1 + random.below(6), 1 + random.below(9)];
        let planes = Planes::new(&Shape::new(&dims).unwrap(), 0).unwrap();
        let rows = Rows::of_planes(&planes, 1 << random.below(7));
        let chunk_rows = 1 + random.below(rows.count());
        let symbols = symbols(&table, rows.symbols(), &mut random);
        let name = format!("round {round}: {dims:?}, {rows:?} by {chunk_rows}, {bits} bits");
        Case::new(name, rows, chunk_rows, &table, symbols).check(&mut random);
    }
}

#[test]
fn many_equal_chunks_are_the_reference() {
    let mut random = Random(10);
    let mut table = Table::default();
    for bits in [6, 7, 8, 9, 12] {
        for kind in [1, 2, 3] {
            table.normalize(&weights(kind, 15, &mut random), bits).unwrap();
            for chunks in 1..=10 {
                let count = MAX_LANES * 50 * chunks - random.below(64);
                let rows = Rows::natural(count, MAX_LANES);
                let symbols = symbols(&table, count, &mut random);
                let name = format!("{bits} bits, kind {kind}, {chunks} chunks");
                Case::new(name, rows, 50, &table, symbols).check(&mut random);
            }
        }
    }
}

#[test]
fn rows_that_take_about_a_word_of_bits_are_the_reference() {
    let mut random = Random(11);
    let mut table = Table::default();
    // States read one bit or none, or six: what is rare in the table decides whether rows taken together fit into a word.
    table.normalize(&[61, 1, 1, 1], 6).unwrap();
    for one_in in [5, 6, 7, 8, 10, 14, 20, 30, 60] {
        for chunks in 1..=5 {
            let count = MAX_LANES * 500 * chunks;
            let mut drawn = || if random.below(one_in) == 0 { 1 + random.below(3) as u8 } else { 0 };
            let symbols = (0..count).map(|_| drawn()).collect();
            let rows = Rows::natural(count, MAX_LANES);
            let name = format!("one in {one_in}, {chunks} chunks");
            Case::new(name, rows, 500, &table, symbols).check(&mut random);
        }
    }
}
