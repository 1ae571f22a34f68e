//! Every path against the reference: the same words, the same symbols, the same errors.

use super::{ChunkDecoder, ChunkEncoder, Input, Output, Run};
use crate::cpu::Path;
use crate::layout::{Planes, Rows};
use crate::model::{Classes, Context, Model, probability_bits};
use crate::tensor::Shape;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// How weights are spread over the symbols.
#[derive(Clone, Copy, Debug)]
enum Weights {
    Even,
    Geometric,
    /// One symbol has all but one part in 2^b.
    Lone,
    /// Some symbols have none.
    Gaps,
}

const SPREADS: [Weights; 4] = [Weights::Even, Weights::Geometric, Weights::Lone, Weights::Gaps];

struct Case {
    rows: Rows,
    chunk_rows: usize,
    model: Model,
    coded: Vec<u8>,
    name: String,
}

impl Case {
    /// Symbols that the model can code, in rows of this geometry.
    fn new(random: &mut Random, rows: Rows, chunk_rows: usize, alphabet: usize, contexts: bool) -> Self {
        let shape = random.pick(&SPREADS);
        let mut model = Model::with_context(Context::None);
        if contexts {
            let mut counts = vec![0; 64 * alphabet];
            (0..300).for_each(|_| counts[random.below(64 * alphabet)] += 1);
            let per_entry = random.pick(&[0.0, 1.0, 8.0]);
            model.context = Context::Neighbours(Classes::merge(alphabet, &mut counts, per_entry));
        }
        let lone = random.below(alphabet);
        for table in model.tables_mut() {
            let mut weights = vec![0; alphabet];
            for (symbol, weight) in weights.iter_mut().enumerate() {
                *weight = match shape {
                    Weights::Even => 1,
                    Weights::Geometric => 1 + (1 << 20 >> symbol.min(31)),
                    Weights::Lone => u32::from(symbol == lone),
                    Weights::Gaps => random.below(3) as u32,
                };
            }
            weights[lone] += 1;
            table.normalize(&weights, probability_bits(alphabet)).unwrap();
        }
        // A symbol must have a frequency in every table it may be coded with.
        let can = |s: &usize| model.tables().iter().all(|table| table.frequencies()[*s] > 0);
        let possible: Vec<u8> = (0..alphabet).filter(can).map(|s| s as u8).collect();
        let often = random.pick(&[0, 1, 50]);
        let coded = (0..rows.symbols())
            .map(|_| if random.below(often + 1) > 0 { lone as u8 } else { random.pick(&possible) })
            .collect();
        let name = format!("{rows:?} by {chunk_rows}, alphabet {alphabet}, {shape:?}, {:?}", model.context);
        Self { rows, chunk_rows, model, coded, name }
    }

    fn encode(&self, coder: &mut ChunkEncoder, path: Path) -> (Vec<u8>, Vec<u32>) {
        let (mut payload, mut lengths) = (Vec::new(), Vec::new());
        let output = Output { payload: &mut payload, lengths: &mut lengths };
        coder.encode(path, &self.coded, &Run::all(&self.rows, self.chunk_rows), &self.model, output);
        (payload, lengths)
    }

    fn decode(
        &self,
        coder: &mut ChunkDecoder,
        path: Path,
        payload: &[u8],
        lengths: &[u32],
    ) -> Result<Vec<u8>, (usize, &'static str)> {
        let mut coded = vec![0; self.coded.len()];
        let input = Input { payload, lengths };
        coder.decode(path, input, &Run::all(&self.rows, self.chunk_rows), &self.model, &mut coded)?;
        Ok(coded)
    }

    /// All paths, with coders that have coded other cases before.
    fn check(&self, coders: &mut (ChunkEncoder, ChunkDecoder), random: &mut Random, corruptions: usize) {
        let (payload, lengths) = self.encode(&mut coders.0, Path::Reference);
        let paths = || Path::ALL.into_iter().filter(|path| path.is_available());
        for path in paths() {
            let encoded = self.encode(&mut coders.0, path);
            assert!(
                encoded == (payload.clone(), lengths.clone()),
                "{path:?} encodes otherwise: {}",
                self.name
            );
            let decoded = self.decode(&mut coders.1, path, &payload, &lengths);
            assert!(decoded.as_ref() == Ok(&self.coded), "{path:?} decodes otherwise: {}", self.name);
        }
        for _ in 0..corruptions {
            let (mut payload, mut lengths) = (payload.clone(), lengths.clone());
            match random.below(4) {
                // A word less or more in one chunk, if it has one.
                0 => {
                    let chunk = random.below(lengths.len());
                    if lengths[chunk] > 0 && random.below(2) == 0 {
                        lengths[chunk] -= 1;
                        payload.truncate(payload.len() - 2);
                    } else {
                        lengths[chunk] += 1;
                        payload.extend([random.below(256) as u8, random.below(256) as u8]);
                    }
                }
                1 => (0..payload.len()).for_each(|at| payload[at] = random.below(256) as u8),
                _ => {
                    let at = random.below(payload.len());
                    payload[at] ^= 1 << random.below(8);
                }
            }
            let expected = self.decode(&mut coders.1, Path::Reference, &payload, &lengths);
            for path in paths() {
                let decoded = self.decode(&mut coders.1, path, &payload, &lengths);
                assert!(decoded == expected, "{path:?} sees other damage: {}", self.name);
            }
        }
    }
}

fn planes(count: usize, lines: usize, width: usize, lanes: usize) -> Rows {
    let shape = Shape::new(&[count, lines, width]).unwrap();
    Rows::of_planes(&Planes::new(&shape, 0).unwrap(), lanes)
}

#[test]
fn every_path_gives_the_reference_s_words_symbols_and_errors() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut coders = <(ChunkEncoder, ChunkDecoder)>::default();
    for round in 0..600 {
        let alphabet = random.pick(&[2, 3, 4, 7, 8, 9, 15, 16, 17, 32, 33, 64, 65, 128, 255, 256]);
        let lanes = 1 << random.below(6);
        let contexts = random.below(3) > 0;
        let rows = if contexts {
            let (count, lines, width) = (1 + random.below(80), 1 + random.below(9), 1 + random.below(9));
            planes(count, lines, width, lanes)
        } else {
            Rows::natural(1 + random.below(70 * lanes), lanes)
        };
        let chunk_rows = match random.below(3) {
            0 => rows.count(),
            1 => 1 + random.below(rows.count()),
            _ => 1 + rows.count() / (2 + random.below(8)),
        };
        let case = Case::new(&mut random, rows, chunk_rows, alphabet, contexts);
        case.check(&mut coders, &mut random, if round % 3 == 0 { 20 } else { 2 });
    }
}

#[test]
fn every_alphabet_with_and_without_contexts() {
    let mut random = Random(77);
    let mut coders = <(ChunkEncoder, ChunkDecoder)>::default();
    for alphabet in 2..=256 {
        let rows = planes(45, 4, 5, 32);
        Case::new(&mut random, rows, 13, alphabet, true).check(&mut coders, &mut random, 1);
        let rows = Rows::natural(32 * 20 + alphabet % 32, 32);
        Case::new(&mut random, rows, 5, alphabet, false).check(&mut coders, &mut random, 1);
    }
}

#[test]
fn every_number_of_lanes_and_length_of_tail() {
    let mut random = Random(5);
    let mut coders = <(ChunkEncoder, ChunkDecoder)>::default();
    for lanes in [1, 2, 4, 8, 16, 32] {
        for symbols in (1..=3 * lanes).chain(70 * lanes..=71 * lanes) {
            let rows = Rows::natural(symbols, lanes);
            let chunk_rows = random.pick(&[1, 2, 7, 100]).min(rows.count());
            Case::new(&mut random, rows, chunk_rows, 11, false).check(&mut coders, &mut random, 1);
        }
        for count in 1..=2 * lanes {
            let rows = planes(count, 3, 4, lanes);
            let chunk_rows = 1 + random.below(rows.count());
            Case::new(&mut random, rows, chunk_rows, 11, true).check(&mut coders, &mut random, 1);
        }
    }
}

#[test]
fn a_frequency_of_all_but_one_and_one_rare_symbol() {
    let mut random = Random(9);
    let mut coders = <(ChunkEncoder, ChunkDecoder)>::default();
    for alphabet in [2, 8, 16, 32, 64, 200] {
        for rare in [None, Some(0), Some(31), Some(32 * 5 + 7), Some(32 * 200 - 1)] {
            let rows = Rows::natural(32 * 200, 32);
            let mut case = Case::new(&mut random, rows, 50, alphabet, false);
            let bits = probability_bits(alphabet);
            let mut weights = vec![0; alphabet];
            weights[1] = 1;
            case.model.tables_mut()[0].normalize(&weights, bits).unwrap();
            assert_eq!(u32::from(case.model.tables()[0].frequencies()[1]), (1 << bits) - 1);
            case.coded.fill(1);
            if let Some(place) = rare {
                case.coded[place] = 0;
            }
            case.check(&mut coders, &mut random, 10);
        }
    }
}
