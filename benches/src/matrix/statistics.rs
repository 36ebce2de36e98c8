//! Medians, spreads, and ratios of turns that followed each other.

/// The middle of some values, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The value in the middle; of an even number, the mean of the two.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

/// Returns the spread of some values; `None` if there are none, or one is no number.
#[must_use]
pub fn spread(values: &[f64]) -> Option<Spread> {
    if values.is_empty() || !values.iter().all(|value| value.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (last, middle) = (sorted.len() - 1, sorted.len() / 2);
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    };
    Some(Spread {
        median,
        least: sorted[0],
        most: sorted[last],
    })
}

/// Returns the spread of some values, with their mean in the middle: for values that are counts of a few samples, of
/// which the median says little.
#[must_use]
pub fn around_the_mean(values: &[f64]) -> Option<Spread> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    spread(values).map(|spread| Spread {
        median: mean,
        ..spread
    })
}

/// Returns the spread of the ratios of values that belong together; `None` if the numbers of both differ, or something
/// is divided by nothing.
#[must_use]
pub fn paired(one: &[f64], other: &[f64]) -> Option<Spread> {
    if one.len() != other.len() {
        return None;
    }
    let ratios: Vec<f64> = one
        .iter()
        .zip(other)
        .map(|(one, other)| one / other)
        .collect();
    spread(&ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        let told = spread(&[4.0, 1.0, 3.0, 100.0]).expect("there are values");
        assert_eq!(
            told,
            Spread {
                median: 3.5,
                least: 1.0,
                most: 100.0
            }
        );
    }

    #[test]
    fn the_median_of_an_odd_number_is_one_of_them() {
        let told = spread(&[9.0, 1.0, 2.0]).expect("there are values");
        assert_eq!(
            told,
            Spread {
                median: 2.0,
                least: 1.0,
                most: 9.0
            }
        );
    }

    #[test]
    fn a_mean_takes_the_place_of_the_median() {
        let told = around_the_mean(&[0.0, 0.0, 3.0]).expect("there are values");
        assert_eq!((told.median, told.least, told.most), (1.0, 0.0, 3.0));
    }

    #[test]
    fn nothing_has_no_median() {
        assert_eq!(spread(&[]), None);
        assert_eq!(around_the_mean(&[]), None);
        assert_eq!(spread(&[1.0, f64::NAN]), None);
        assert_eq!(paired(&[1.0], &[0.0]), None);
        assert_eq!(paired(&[1.0, 2.0], &[1.0]), None);
    }

    #[test]
    fn a_machine_that_slows_down_for_both_changes_no_ratio() {
        let told = paired(&[10.0, 5.0, 1.0], &[20.0, 10.0, 2.0]).expect("there are pairs");
        assert_eq!(
            told,
            Spread {
                median: 0.5,
                least: 0.5,
                most: 0.5
            }
        );
    }
}
