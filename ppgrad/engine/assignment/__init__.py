"""Which estimator serves which site.

In: what an objective was given, and the message of a site. Out: the estimator that draws the site and has its
surrogate, or an error that names the site and what to write.
"""
