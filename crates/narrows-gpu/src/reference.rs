//! What every device must write: its plan, carried out by the CPU codec.

use narrows::stream::{self, Assembly};
use narrows::{Affine, Csr, Element, Elements, EncodeOptions, Tensor, TensorView};

use crate::error::Result;
use crate::plan::{Map, Plan};

/// The frame that an encoder of this crate writes for a tensor, on any device.
///
/// # Errors
/// As the encoders': [`narrows::Error::NonFinite`], [`narrows::Error::Shape`],
/// [`Error::NotOffered`](crate::Error::NotOffered).
pub fn encode(options: &EncodeOptions, tensor: &TensorView<'_>) -> Result<Vec<u8>> {
    encode_reshaped(options, tensor, None)
}

/// The same for a modified CSR of so many rows (`with_reshape` of the CUDA encoder).
///
/// # Errors
/// As [`encode`].
pub fn encode_reshaped(
    options: &EncodeOptions,
    tensor: &TensorView<'_>,
    reshape: Option<usize>,
) -> Result<Vec<u8>> {
    let dense = tensor.to_tensor();
    if dense.shape().elements() == 0 {
        return Ok(narrows::Encoder::new(options.clone())?.encode(tensor)?);
    }
    let plan = Plan::new(options, tensor.shape(), reshape)?;
    let values = match dense.elements() {
        Elements::F32(elements) => to_f32(elements),
        Elements::F16(elements) => to_f32(elements),
        Elements::Bf16(elements) => to_f32(elements),
    };
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(narrows::Error::NonFinite { index, value: values[index] }.into());
    }
    let map = match plan.map {
        Map::Fixed(map) => map,
        Map::Range(levels) => {
            let (min, max) = values.iter().fold((f32::MAX, f32::MIN), |(a, b), &x| (a.min(x), b.max(x)));
            if min == max {
                let mut frame = stream::constant_head(dense.dtype(), dense.shape());
                frame.extend_from_slice(&dense.to_le_bytes()[..dense.dtype().size()]);
                stream::write_checksum(&mut frame);
                return Ok(frame);
            }
            Affine::from_range(min, max, levels)
        }
    };
    let symbols: Vec<u8> = values.iter().map(|&value| map.quantize(value)).collect();
    let chunks = (plan.geometry.lanes, plan.geometry.chunk_rows);
    if let Some((rows, _)) = plan.csr() {
        return Ok(encode_csr(&plan, &dense, &map, &symbols, rows));
    }
    let counts = Assembly::count(&plan.planes, plan.alphabet(), plan.tables(), chunks, &symbols);
    let (mut assembly, mut frame) = (Assembly::default(), Vec::new());
    assembly.start((dense.dtype(), dense.shape(), &plan.planes), &map, plan.tables(), chunks, &counts);
    assembly.encode(&symbols, &mut frame);
    Ok(frame)
}

fn encode_csr(plan: &Plan, dense: &Tensor, map: &Affine, symbols: &[u8], rows: usize) -> Vec<u8> {
    let (mut csr, mut sequence) = (Csr::default(), Vec::new());
    csr.set(symbols, rows);
    csr.concatenate(&mut sequence);
    let mut counts = vec![0; plan.alphabet()];
    sequence.iter().for_each(|&symbol| counts[usize::from(symbol)] += 1);
    let tables = stream::Tables::Csr { rows, nonzeros: csr.values.len() };
    let chunks = (plan.geometry.lanes, plan.geometry.chunk_rows);
    let (mut assembly, mut frame) = (Assembly::default(), Vec::new());
    assembly.start((dense.dtype(), dense.shape(), &plan.planes), map, tables, chunks, &counts);
    assembly.encode_sequence(&sequence, &mut frame);
    frame
}

fn to_f32<T: Element>(elements: &[T]) -> Vec<f32> {
    elements.iter().map(|&x| x.to_f32()).collect()
}
