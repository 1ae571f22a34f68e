//! Which of a model's open dimensions a tensor inside it has.

use crate::Result;
use crate::analysis::{Analysis, Analyst};
use crate::graph::Graph;
use crate::sizes::{Dim, Resolved, Sizes, dims};

/// Shapes of a model's tensors in terms of its open dimensions.
///
/// Engines work shapes out for inputs of known size. So they are asked twice, with sizes that are primes and differ: what
/// stays the same is fixed, what changes with a symbol, or with a sum that the model names, is that symbol or sum.
pub(crate) struct OpenDims {
    first: (Analysis, Resolved),
    /// `None` if nothing is open, or if the model runs with one size only.
    second: Option<(Analysis, Resolved)>,
    /// What an open dimension may be.
    terms: Vec<Dim>,
}

/// Sizes for the batch and for the other dimensions. A batch of one is for models that were traced with it.
const TRIALS: [[(usize, [usize; 6]); 2]; 2] = [
    [(2, [5, 7, 11, 13, 17, 19]), (3, [23, 29, 31, 37, 41, 43])],
    [(1, [5, 7, 11, 13, 17, 19]), (1, [23, 29, 31, 37, 41, 43])],
];

impl OpenDims {
    pub(crate) fn new(analyst: &Analyst<'_>, graph: &Graph<'_>) -> Result<Self> {
        let usual = Sizes::default().resolve(graph)?;
        let analyse = |sizes: Resolved| analyst.analyse(graph, &sizes).map(|analysis| (analysis, sizes));
        if !usual.sizes.is_empty() {
            for [first, second] in TRIALS {
                let [first, second] = [first, second].map(|(batch, others)| trial(&usual, batch, &others));
                if let (Ok(first), Ok(second)) = (analyse(first), analyse(second)) {
                    return Ok(Self { first, second: Some(second), terms: terms(graph)? });
                }
            }
        }
        Ok(Self { first: analyse(usual)?, second: None, terms: Vec::new() })
    }

    /// The shape of a tensor.
    pub(crate) fn shape(&self, name: &str) -> Result<Vec<Dim>> {
        let first = self.first.0.shape(name)?;
        let Some(second) = &self.second else { return Ok(first.into_iter().map(Dim::Fixed).collect()) };
        let pairs = first.into_iter().zip(second.0.shape(name)?);
        Ok(pairs.map(|(first, second)| self.dim(first, second)).collect())
    }

    fn dim(&self, first: usize, second: usize) -> Dim {
        if first == second {
            return Dim::Fixed(first);
        }
        let is_it = |term: &&Dim| {
            let size = |sizes: &Resolved| sizes.size(term, 1);
            let later = self.second.as_ref().and_then(|(_, sizes)| size(sizes));
            size(&self.first.1) == Some(first) && later == Some(second)
        };
        self.terms.iter().find(is_it).cloned().unwrap_or(Dim::Open(String::new()))
    }
}

/// Another size for every symbol: batches are those of size 1.
fn trial(usual: &Resolved, batch: usize, others: &[usize]) -> Resolved {
    let mut others = others.iter().copied().cycle();
    let mut size = |usual: usize| if usual == 1 { batch } else { others.next().unwrap_or(usual) };
    let sizes = usual.sizes.iter().map(|(symbol, usual)| (symbol.clone(), size(*usual)));
    Resolved { sizes: sizes.collect() }
}

/// The open dimensions of a model's inputs and outputs, symbols before sums.
fn terms(graph: &Graph<'_>) -> Result<Vec<Dim>> {
    let mut terms = Vec::new();
    for input in graph.data_inputs() {
        terms.extend(dims(input)?);
    }
    terms.extend(graph.proto.output.iter().filter_map(|output| dims(output).ok()).flatten());
    terms.retain(|dim| matches!(dim, Dim::Open(symbol) if !symbol.is_empty()));
    terms.sort_by_key(|dim| matches!(dim, Dim::Open(sum) if sum.contains('+')));
    terms.dedup();
    Ok(terms)
}
