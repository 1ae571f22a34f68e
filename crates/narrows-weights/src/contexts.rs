//! Weights coded in the context of what is left of them: is it zero or not?
//!
//! A lane's weights must be neighbours for that, so lanes are runs of columns ([`order`]) instead of every 64th. Each context has
//! its own frequencies on the same states, and which context a state is in is one more bit of it: two machines of 64
//! states are decoded as one of 128.

use narrows::machine::{ByteStates, Machine};

/// Whether tensors may be coded in contexts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Contexts {
    /// One table for all weights: decodes fastest.
    #[default]
    One,
    /// A table for weights that have a zero to the left and one for the others, where that is smaller: by about 3 % of convolutions
    /// with most weights zero.
    Neighbour,
}

/// The most state bits of a machine in two contexts: so that both fit into a byte.
pub(crate) const MOST_STATE_BITS: u32 = 7;
/// Contexts are taken only if they save more than this share: they cost decoding time.
pub(crate) const WORTH_IT: f64 = 0.01;

/// The column at each place of the coded order, for rows of `columns` columns in `lanes` lanes: lane by lane a run of columns,
/// the first `columns % lanes` lanes one more than the others.
pub(crate) fn order(columns: usize, lanes: usize) -> Vec<u32> {
    let (run, more) = (columns / lanes, columns % lanes);
    let mut order = Vec::with_capacity(columns);
    for step in 0..run + usize::from(more > 0) {
        let used = if step < run { lanes } else { more };
        order.extend((0..used).map(|lane| (lane * run + lane.min(more) + step) as u32));
    }
    order
}

/// Put each row's elements at the places of `order`.
pub(crate) fn to_order<T: Copy>(order: &[u32], values: &[T]) -> Vec<T> {
    let rows = values.chunks_exact(order.len());
    rows.flat_map(|row| order.iter().map(move |&column| row[column as usize])).collect()
}

/// Undo [`to_order`] in place.
pub(crate) fn from_order<T: Copy>(order: &[u32], values: &mut [T]) {
    let mut coded = Vec::with_capacity(order.len());
    for row in values.chunks_exact_mut(order.len()) {
        coded.clear();
        coded.extend_from_slice(row);
        order.iter().zip(&coded).for_each(|(&column, &value)| row[column as usize] = value);
    }
}

/// The element before the one at `place` of `row` in its lane: within the row, else the lane's last in the row before.
pub(crate) fn before<T: Copy>(
    values: &[T],
    columns: usize,
    lanes: usize,
    row: usize,
    place: usize,
) -> Option<T> {
    if place >= lanes {
        return Some(values[row * columns + place - lanes]);
    }
    let last = place + (columns - 1 - place) / lanes * lanes;
    row.checked_sub(1).map(|row| values[row * columns + last])
}

/// How often each bin occurs (from `-half` on) after a zero or at the start of a strip of `chunk_rows` rows, and after others;
/// `values` are in the coded order.
pub(crate) fn counts(
    values: &[i8],
    half: u8,
    (columns, lanes, chunk_rows): (usize, usize, usize),
) -> [Vec<u64>; 2] {
    let mut counts = [vec![0; 2 * usize::from(half) + 1], vec![0; 2 * usize::from(half) + 1]];
    for strip in values.chunks(chunk_rows * columns) {
        for (at, &value) in strip.iter().enumerate() {
            let before = before(strip, columns, lanes, at / columns, at % columns);
            let context = usize::from(before.is_some_and(|before| before != 0));
            counts[context][(i16::from(value) + i16::from(half)) as usize] += 1;
        }
    }
    counts
}

/// The states of the machines of all contexts as one machine: context `c` has the states from `c * S` on, symbols are
/// values, and what leads to a state says which context comes next. They fit into a byte.
pub(crate) fn together(machines: &[Machine], half: u8) -> ByteStates {
    let mut all = ByteStates::default();
    for (context, machine) in machines.iter().enumerate() {
        let count = machine.states.len();
        for state in 0..count {
            let at = context * count + state;
            let symbol = machine.bytes.symbols[state];
            let next = if machines.len() > 1 && symbol != half { count } else { 0 };
            all.symbols[at] = symbol.wrapping_sub(half);
            all.bits[at] = machine.bytes.bits[state];
            all.bases[at] = machine.bytes.bases[state] + next as u8;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_a_permutation_whose_lanes_are_runs() {
        for (columns, lanes) in [(64, 64), (65, 64), (576, 64), (100, 32), (27, 16), (5, 5), (1, 1)] {
            let order = order(columns, lanes);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.iter().enumerate().all(|(at, &column)| at == column as usize));
            for place in lanes..columns {
                assert_eq!(order[place], order[place - lanes] + 1, "{columns} columns, {lanes} lanes");
            }
            let values: Vec<u32> = (0..3 * columns as u32).collect();
            let mut back = to_order(&order, &values);
            from_order(&order, &mut back);
            assert_eq!(values, back);
        }
    }
}
