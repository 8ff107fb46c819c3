"""What is reckoned from a study's runs: intervals, verdicts against the base, effects of axes."""
