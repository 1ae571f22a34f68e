//! State: tensors that a model takes back at the next step, such as the key-value caches of a decoder.

use crate::graph::{Graph, Source, node_is_default_domain};
use crate::{Model, Result};

/// A tensor that leaves a model at one step and enters it again at the next.
///
/// It is found by its form: an output made of an input by appending to it (`Concat`) or by overwriting part of it
/// (`ScatterND`, `ScatterElements`), with nothing between the two but `Identity`, `Cast` to the same type, or a
/// `Concat` of one. Names do not matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    /// The input through which it enters, such as `past_key_values.0.key`.
    pub input: String,
    /// The output through which it leaves, such as `present.0.key`.
    pub output: String,
}

/// The state of a model, in the order of its outputs.
///
/// # Errors
/// None that [`Model::from_bytes`] has not already ruled out.
pub fn states(model: &Model) -> Result<Vec<State>> {
    let graph = model.graph()?;
    Ok(pairs(&graph))
}

pub(crate) fn pairs(graph: &Graph<'_>) -> Vec<State> {
    let mut pairs: Vec<State> = Vec::new();
    for output in &graph.proto.output {
        let Some(input) = kept(graph, &output.name) else { continue };
        // A model that writes one input to two outputs keeps no state in either.
        if pairs.iter().all(|pair| pair.input != input) {
            pairs.push(State { input: input.into(), output: output.name.clone() });
        }
    }
    pairs
}

/// The input that an output is an update of.
fn kept<'a>(graph: &Graph<'a>, output: &'a str) -> Option<&'a str> {
    let mut name = output;
    let mut is_updated = false;
    loop {
        let position = match graph.sources.get(name)? {
            Source::Node(position) => *position,
            Source::Input(_) => return is_updated.then_some(name),
            Source::Initialiser(_) => return None,
        };
        let node = &graph.proto.node[position];
        if !node_is_default_domain(node) {
            return None;
        }
        let read = node.input.first()?;
        match node.op_type.as_str() {
            "Identity" | "Cast" => {}
            // The first operand is what was there before, as far as a chain of them leads back to an input.
            "Concat" => is_updated |= node.input.len() > 1,
            "ScatterND" | "ScatterElements" => is_updated = true,
            _ => return None,
        }
        name = read;
    }
}
