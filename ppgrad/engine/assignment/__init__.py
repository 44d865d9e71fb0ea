"""Which estimator serves which site.

In: an objective's estimator and its ``sites=``, and the message of a site. Out: the estimator that draws the site's
value and supplies its term of the surrogate, or an error that names the site and what to write.
"""
