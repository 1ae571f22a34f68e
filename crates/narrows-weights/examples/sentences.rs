//! Sentence embeddings from packed weights, compared with the same encoder's from dense ones.
//!
//!     cargo run --release -p narrows-weights --example sentences -- PACKED DENSE WORDS HEADS
//!
//! PACKED and DENSE are files of `narrows pack` (DENSE of `--lossless`), WORDS a JSON list of lists of token ids. Prints the cosines, and
//! the memory that the packed encoder keeps resident.

use std::time::Instant;

use narrows_weights::PackedFile;
use narrows_weights::net::Bert;

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
    let [packed, dense, words, heads] = args.as_slice() else {
        return Err("usage: sentences PACKED DENSE WORDS HEADS".into());
    };
    let sentences: Vec<Vec<u32>> = serde_json::from_slice(&std::fs::read(words)?)?;
    let heads: usize = heads.parse()?;
    let before = resident();
    let encoder = Bert::of(&PackedFile::open(packed)?, "", heads)?;
    let start = Instant::now();
    let ours = sentences.iter().map(|words| encoder.embed(words)).collect::<Result<Vec<_>, _>>()?;
    let packed_time = start.elapsed();
    let after = resident();
    if let (Some([own, _]), Some([own_after, mapped])) = (before, after) {
        println!("packed: {} bytes of its own memory, {mapped} mapped (file and program)", own_after - own);
    }
    drop(encoder);
    let encoder = Bert::of(&PackedFile::open(dense)?, "", heads)?;
    let start = Instant::now();
    let theirs = sentences.iter().map(|words| encoder.embed(words)).collect::<Result<Vec<_>, _>>()?;
    let dense_time = start.elapsed();
    let cosine = |(a, b): (&Vec<f32>, &Vec<f32>)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let mut cosines: Vec<f32> = ours.iter().zip(&theirs).map(cosine).collect();
    cosines.sort_by(f32::total_cmp);
    let mean = cosines.iter().sum::<f32>() / cosines.len() as f32;
    println!("{} sentences: cosine {mean:.4} in the mean, {:.4} at worst", cosines.len(), cosines[0]);
    println!("packed {packed_time:.2?}, dense {dense_time:.2?}");
    Ok(())
}
