"""What records support: statistics, comparisons and recommendations, as plain findings without markup."""
