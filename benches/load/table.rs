//! Figures from several runs, and tables of them.

use std::time::Duration;

/// The same figure from each run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figure(Vec<f64>);

impl Figure {
    /// Adds the value of another run.
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The middle value.
    pub(crate) fn median(&self) -> f64 {
        quantile(&mut self.0.clone(), 0.5)
    }

    /// The newest value.
    pub(crate) fn last(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    /// The median and, for more than one run, the range.
    pub(crate) fn show(&self) -> String {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match self.0.len() {
            0 => "–".to_owned(),
            1 => shown(least),
            _ => format!(
                "{} ({}–{})",
                shown(self.median()),
                shown(least),
                shown(most)
            ),
        }
    }
}

/// Formats with three significant digits, and commas in long numbers.
pub(crate) fn shown(value: f64) -> String {
    match value.abs() {
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        size => {
            // Rounded: the last digits of a million deliveries per second mean nothing.
            let step = 10f64.powi(size.log10() as i32 - 2);
            counted(((value / step).round() * step) as usize)
        }
    }
}

/// Formats a whole number with commas.
pub(crate) fn counted(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The value that a part `of` all values does not exceed.
pub(crate) fn quantile(values: &mut [f64], of: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (values.len() as f64 * of).ceil() as usize;
    values
        .get(place.clamp(1, values.len().max(1)) - 1)
        .copied()
        .unwrap_or(f64::NAN)
}

/// Milliseconds, with their fraction.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A table with its heading, ready for a Markdown file.
pub(crate) fn print(title: &str, heads: &[&str], rows: &[Vec<String>]) {
    println!("### {title}\n");
    println!("| {} |", heads.join(" | "));
    println!("|{}", "---|".repeat(heads.len()));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
    println!();
}
