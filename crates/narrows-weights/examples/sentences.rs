//! Sentence embeddings from packed weights, compared with the same encoder's from the checkpoint that was packed.
//!
//!     cargo run --release -p narrows-weights --example sentences -- PACKED CHECKPOINT TOKENS HEADS
//!
//! TOKENS has a sentence in each line, its token numbers with spaces between. Prints bits a weight (the whole file over all
//! elements), the cosines, and the memory that the packed encoder keeps resident.

use std::time::Instant;

use narrows_weights::net::Bert;
use narrows_weights::{Checkpoint, PackedFile};

/// Bytes of memory: what is the process's own, and what it has mapped from files.
fn resident() -> Option<[u64; 2]> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let of = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    };
    Some([of("RssAnon:")?, of("RssFile:")?])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [packed, checkpoint, tokens, heads] = args.as_slice() else {
        return Err("usage: sentences PACKED CHECKPOINT TOKENS HEADS".into());
    };
    let text = std::fs::read_to_string(tokens)?;
    let numbers = |line: &str| line.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>();
    let sentences = text.lines().map(numbers).collect::<Result<Vec<_>, _>>()?;
    let heads: usize = heads.parse()?;
    let before = resident();
    let file = PackedFile::open(packed)?;
    let encoder = Bert::of(&file, "", heads)?;
    let start = Instant::now();
    let ours = sentences.iter().map(|words| encoder.embed(words)).collect::<Result<Vec<_>, _>>()?;
    let packed_time = start.elapsed();
    let after = resident();
    let checkpoint = Checkpoint::open(checkpoint)?;
    let elements: usize = checkpoint.tensors().values().map(narrows_weights::Plain::elements).sum();
    let (bytes, _) = file.bytes();
    println!("{bytes} bytes, {:.4} bits a weight of {elements}", 8.0 * bytes as f64 / elements as f64);
    if let (Some([own, _]), Some([own_after, mapped])) = (before, after) {
        println!("packed: {} bytes of its own memory, {mapped} mapped (file and program)", own_after - own);
    }
    drop(encoder);
    let encoder = Bert::of_checkpoint(&checkpoint, "", heads)?;
    let start = Instant::now();
    let theirs = sentences.iter().map(|words| encoder.embed(words)).collect::<Result<Vec<_>, _>>()?;
    let dense_time = start.elapsed();
    let cosine = |(a, b): (&Vec<f32>, &Vec<f32>)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let mut cosines: Vec<f32> = ours.iter().zip(&theirs).map(cosine).collect();
    cosines.sort_by(f32::total_cmp);
    let mean = cosines.iter().sum::<f32>() / cosines.len() as f32;
    println!(
        "{} sentences: cosine {mean:.5} in the mean, {:.5} of the lowest twentieth, {:.5} at worst",
        cosines.len(),
        cosines[cosines.len() / 20],
        cosines[0]
    );
    println!("packed {packed_time:.2?}, dense {dense_time:.2?}");
    Ok(())
}
