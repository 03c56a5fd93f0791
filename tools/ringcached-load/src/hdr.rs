//! HdrHistogram's percentile distribution as text, which its plotter and other tools read.

use std::io::{self, Write};

use hdrhistogram::Histogram;

/// Rows for each halving of the distance to 100 %.
const TICKS_PER_HALVING: u32 = 5;
const NS_PER_US: f64 = 1000.0;

/// Writes a histogram of nanoseconds in microseconds.
pub fn write(histogram_ns: &Histogram<u64>, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut total = 0;
    for step in histogram_ns.iter_quantiles(TICKS_PER_HALVING) {
        total += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / NS_PER_US;
        let quantile = step.quantile_iterated_to();
        write!(out, "{value:12.3} {quantile:2.12} {total:10}")?;
        if quantile < 1.0 {
            writeln!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out)?;
        }
    }
    let mean = histogram_ns.mean() / NS_PER_US;
    let deviation = histogram_ns.stdev() / NS_PER_US;
    writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
    let max = histogram_ns.max() as f64 / NS_PER_US;
    writeln!(out, "#[Max     = {max:12.3}, Total count    = {:12}]", histogram_ns.len())?;
    let (buckets, subs) = (histogram_ns.buckets(), 2048);
    writeln!(out, "#[Buckets = {buckets:12}, SubBuckets     = {subs:12}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_is_in_the_standard_form() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 1_000_000_000, 3).unwrap();
        histogram.record_n(10_000, 90).unwrap();
        histogram.record_n(500_000, 10).unwrap();
        let mut out = Vec::new();
        write(&histogram, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .take_while(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|field| field.parse().unwrap()).collect())
            .collect();
        assert!(text.lines().next().unwrap().contains("Percentile TotalCount 1/(1-Percentile)"));
        assert!(rows.windows(2).all(|two| two[0][1] <= two[1][1] && two[0][2] <= two[1][2]));
        let median = rows.iter().find(|row| row[1] >= 0.5).unwrap();
        assert!((median[0] - 10.0).abs() < 0.1 && median[2] == 90.0, "{median:?}");
        let last = rows.last().unwrap();
        assert!((last[0] - 500.0).abs() < 1.0 && last[2] == 100.0, "{last:?}");
        assert_eq!(last.len(), 3, "the last row has no 1/(1-1)");
        assert!(text.contains("#[Mean    =       59.0"), "{text}");
    }
}
