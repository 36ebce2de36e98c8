//! What is paid for figures: recording a value, and reading a histogram.

mod shared;

use benches::micro::histograms;

fn main() {
    let mut criterion = shared::criterion();
    let mut group = criterion.benchmark_group("histogram");
    shared::bench(&mut group, "record", 1, histograms::record);
    shared::bench(&mut group, "read", 1, histograms::read);
    group.finish();
    criterion.final_summary();
}
