//! Profiles: what both ends agree on beforehand, so that frames need not carry it.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::bits::{BitReader, BitWriter};
use crate::codec::EncodeOptions;
use crate::cpu::Path;
use crate::error::{Error, Result};
use crate::frame::quantizer::{read_affine, write_affine};
use crate::frame::{Cursor, read_checksum, write_checksum};
use crate::layout::{Planes, Rows};
use crate::model::bins::BinCounter;
use crate::model::coding::{self, Scale};
use crate::model::lengths::Lengths;
use crate::model::neighbours::Neighbours;
use crate::model::{Classes, Context, Model, probability_bits};
use crate::quantize::{self, Affine, Clip, Dequantizer, Output, Quantizer, Scratch};
use crate::tensor::{TensorView, with_elements};

const MAGIC: [u8; 3] = *b"NRP";
const VERSION: u8 = 1;

/// The name of a profile: the first 8 bytes of the SHA-256 of its contents.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProfileId(pub [u8; 8]);

impl std::fmt::Display for ProfileId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for ProfileId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProfileId({self})")
    }
}

/// Parameters calibrated on sample tensors: the quantiser's map, where channels lie, the tables.
///
/// A frame coded with a profile carries its [`ProfileId`] instead of tables and step. Profiles are
/// immutable; to change one is to make another, with another name.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    id: ProfileId,
    affine: Affine,
    axis: usize,
    model: Model,
    /// What the model's symbols cost.
    lengths: Lengths,
}

/// What [`Profile::calibrate`] aims for.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// Levels of the quantiser, 2 to 256; not only powers of two.
    pub levels: u16,
    /// How much of the values' range the levels span, over all samples together.
    pub clip: Clip,
    /// The axis that holds the channels, if not the [usual one](Planes::usual_axis).
    pub axis: Option<usize>,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { levels: 16, clip: Clip::Percentile(99.5), axis: None }
    }
}

/// At most this many values decide the range; more samples are thinned out evenly.
const POOLED_VALUES: usize = 1 << 22;

impl Profile {
    /// The profile for tensors like `samples`: all of one rank, such as the features at one cut for
    /// some hundred inputs.
    ///
    /// The range is taken over the pooled values of all samples and clipped; the neighbour classes
    /// and their tables follow from all quantised samples, every symbol keeping a frequency in
    /// every table, so that any tensor can be coded.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no sample with an element or the axis does not exist;
    /// [`Error::NonFinite`] on NaN or infinity; [`Error::InvalidOption`] for levels out of range or
    /// samples that all hold one value.
    pub fn calibrate(samples: &[TensorView<'_>], calibration: &Calibration) -> Result<Self> {
        let levels = calibration.levels;
        if !(2..=quantize::MAX_LEVELS).contains(&levels) {
            let (what, value) = ("levels", f64::from(levels));
            return Err(Error::InvalidOption { what, value, allowed: "2 to 256" });
        }
        Quantizer::Aiq { bits: 8, clip: calibration.clip }.check()?;
        let tensors: Vec<_> = samples.iter().map(TensorView::to_tensor).collect();
        let Some(first) = tensors.iter().find(|tensor| tensor.shape().elements() > 0) else {
            return Err(Error::Shape { what: "number of elements in all samples", value: 0, bound: 1 });
        };
        let axis = calibration.axis.unwrap_or_else(|| Planes::usual_axis(first.shape()));
        let total: usize = tensors.iter().map(|tensor| tensor.shape().elements()).sum();
        let stride = total.div_ceil(POOLED_VALUES);
        let mut pooled = Vec::with_capacity(total / stride + tensors.len());
        for tensor in &tensors {
            pooled.extend(tensor.to_f32().into_iter().step_by(stride));
        }
        let mut scratch = Scratch::default();
        let Some((min, max)) = quantize::range_of(calibration.clip, &pooled, levels, &mut scratch)? else {
            let allowed = "samples with at least two different values";
            return Err(Error::InvalidOption {
                what: "the samples' only value",
                value: f64::from(pooled[0]),
                allowed,
            });
        };
        let affine = Affine::from_range(min, max, levels);
        let model = Self::fit(&tensors, affine, axis, &mut scratch)?;
        Ok(Self::named(affine, axis, model))
    }

    /// Fit neighbour classes and tables to the quantised samples.
    fn fit(tensors: &[crate::Tensor], affine: Affine, axis: usize, scratch: &mut Scratch) -> Result<Model> {
        let alphabet = affine.levels() as usize;
        let (mut symbols, mut counts, mut sums) = (Vec::new(), Vec::new(), Vec::new());
        let mut bins = BinCounter::default();
        let mut dequantizer = Dequantizer::Tensor(affine);
        for tensor in tensors.iter().filter(|tensor| tensor.shape().elements() > 0) {
            let planes = Planes::new(tensor.shape(), axis)?;
            let quantizer = Quantizer::Fixed(affine);
            with_elements!(tensor.elements(), elements => {
                let output = Output { symbols: &mut symbols, tally: None, dequantizer: &mut dequantizer, coded: None };
                quantize::quantize(Path::best(), &quantizer, elements, &planes, output, scratch)?
            });
            let rows = Rows::of_planes(&planes, crate::rans::MAX_LANES);
            let symbols = Neighbours { natural: &symbols, planes: &planes, rows: &rows };
            bins.count(Path::best(), &symbols, alphabet, &mut counts);
            sums.resize(counts.len(), 0_u32);
            sums.iter_mut().zip(&counts).for_each(|(sum, &n)| *sum = sum.saturating_add(n));
        }
        // Tables in a profile cost nothing to send, so classes merge only where there are too many.
        let classes = Classes::merge(alphabet, &mut sums, 0.0);
        let mut model = Model::with_context(Context::Neighbours(classes));
        let bits = probability_bits(alphabet);
        for (table, counts) in model.tables_mut().iter_mut().zip(sums.chunks_exact(alphabet)) {
            // One pseudo-count each: what the samples lack may still come.
            let smoothed: Vec<u32> = counts.iter().map(|&n| n.saturating_mul(16).saturating_add(1)).collect();
            let total = smoothed.iter().map(|&n| u64::from(n)).sum();
            let scale = Scale { bits, mantissa: bits };
            let weights: Vec<u32> = smoothed.iter().map(|&n| coding::weight(n, total, scale)).collect();
            table.normalize(&weights, bits).map_err(|what| Error::InvalidTable { table: 0, what })?;
        }
        Ok(model)
    }

    fn named(affine: Affine, axis: usize, model: Model) -> Self {
        let lengths = Lengths::of(&model);
        let mut profile = Self { id: ProfileId([0; 8]), affine, axis, model, lengths };
        let mut contents = Vec::new();
        profile.write_contents(&mut contents);
        profile.id.0.copy_from_slice(&Sha256::digest(&contents)[..8]);
        profile
    }

    /// The profile's name.
    pub const fn id(&self) -> ProfileId {
        self.id
    }

    /// The quantiser's map.
    pub const fn affine(&self) -> &Affine {
        &self.affine
    }

    /// The axis that holds the channels.
    pub const fn axis(&self) -> usize {
        self.axis
    }

    /// Number of frequency tables.
    pub fn tables(&self) -> usize {
        self.model.tables().len()
    }

    pub(crate) const fn model(&self) -> &Model {
        &self.model
    }

    pub(crate) const fn lengths(&self) -> &Lengths {
        &self.lengths
    }

    /// Options that encode with this profile.
    pub fn options(self: &Arc<Self>) -> EncodeOptions {
        EncodeOptions { profile: Some(Arc::clone(self)), ..EncodeOptions::default() }
    }

    fn write_contents(&self, out: &mut Vec<u8>) {
        out.extend(MAGIC);
        out.push(VERSION);
        write_affine(&self.affine, out);
        out.push(self.axis as u8);
        let Context::Neighbours(classes) = &self.model.context else {
            unreachable!("profiles are fitted with neighbour classes")
        };
        let bits = probability_bits(self.affine.levels() as usize);
        let mut writer = BitWriter::new(out);
        classes.write(&mut writer);
        let frequencies = self.model.tables().iter().flat_map(crate::model::Table::frequencies);
        let weights: Vec<u32> = frequencies.map(|&f| u32::from(f)).collect();
        coding::write(&weights, self.model.tables().len(), Scale { bits, mantissa: bits }, &mut writer);
        writer.finish();
    }

    /// The profile as the bytes of its file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_contents(&mut out);
        write_checksum(&mut out, 0);
        out
    }

    /// A profile from the bytes of its file.
    ///
    /// # Errors
    /// Any header error of [`Error`]: the bytes are not a profile, of a later version, truncated or changed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(bytes);
        let found = cursor.array("profile magic")?;
        if found != MAGIC {
            return Err(Error::BadMagic { what: "profile", found, expected: MAGIC });
        }
        let version = cursor.byte("profile version")?;
        if version > VERSION {
            return Err(Error::UnsupportedVersion { found: version, supported: VERSION });
        }
        let contents = read_checksum(bytes)?;
        let mut cursor = Cursor::new(contents);
        cursor.take("profile magic and version", 4)?;
        let affine = read_affine(&mut cursor)?;
        let axis = usize::from(cursor.byte("channel axis")?);
        if axis >= crate::tensor::MAX_RANK {
            let bound = crate::tensor::MAX_RANK as u64 - 1;
            return Err(Error::InvalidHeader { what: "channel axis", value: axis as u64, bound });
        }
        let alphabet = affine.levels() as usize;
        let mut reader = BitReader::new(cursor.rest());
        let invalid = |(table, what)| Error::InvalidTable { table, what };
        let classes = Classes::read(&mut reader, alphabet).map_err(|what| invalid((0, what)))?;
        let mut model = Model::with_context(Context::Neighbours(classes));
        let bits = probability_bits(alphabet);
        coding::read(&mut reader, model.tables_mut(), alphabet, bits, &mut Vec::new()).map_err(invalid)?;
        if let Some(table) = model.tables().iter().position(|table| !table.is_full()) {
            return Err(invalid((table, "a symbol has no frequency")));
        }
        if reader.bytes_taken() != cursor.rest().len() || !reader.padding_is_zero() {
            return Err(invalid((model.tables().len() - 1, "bytes are left over after it")));
        }
        Ok(Self::named(affine, axis, model))
    }
}

/// The profiles a decoder knows, by name.
#[derive(Clone, Debug, Default)]
pub struct Profiles(HashMap<ProfileId, Arc<Profile>>);

impl Profiles {
    /// Add a profile; returns its name.
    pub fn insert(&mut self, profile: impl Into<Arc<Profile>>) -> ProfileId {
        let profile = profile.into();
        let id = profile.id();
        self.0.insert(id, profile);
        id
    }

    /// The profile of this name.
    ///
    /// # Errors
    /// [`Error::UnknownProfile`] if there is none.
    pub fn find(&self, id: ProfileId) -> Result<&Arc<Profile>> {
        self.0.get(&id).ok_or(Error::UnknownProfile { id })
    }

    /// All profiles, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Profile>> {
        self.0.values()
    }
}
