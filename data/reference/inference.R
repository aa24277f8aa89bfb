# Tests, corrected degrees of freedom, variance components and comparisons of models by mgcv:
# Rscript inference.R, in this folder. Reads terms.csv and ../sleepstudy.csv, writes inference.json.
# R 4.2.2, mgcv 1.8-41.
suppressMessages({library(mgcv); library(jsonlite)})
d <- read.csv("terms.csv", stringsAsFactors = TRUE)
d$area <- factor(d$area, levels = c("A", "B", "C", "D", "E", "F"))
d$positive <- round(exp(d$y / 3), 6)
d$binary <- as.numeric(d$y > .5)
d$spread <- round(d$x + d$w * exp(c(0, .8, -.6, .4, -.9, .5)[as.integer(d$g)]), 6)
near <- list(A = c("B", "F"), B = c("A", "C"), C = c("B", "D"), D = c("C", "E"), E = c("D", "F"), F = c("E", "A"))
sleep <- read.csv("../sleepstudy.csv", stringsAsFactors = TRUE)
names(sleep) <- c("Reaction", "Days", "Subject")[match(tolower(names(sleep)), c("reaction", "days", "subject"))]
sleep$Subject <- factor(sleep$Subject)
tight <- list(epsilon = 1e-11, newton = list(conv.tol = 1e-9))
g <- function(f, family = gaussian(), data = d, method = "REML", ...)
  gam(f, family = family, data = data, method = method, control = tight, drop.unused.levels = FALSE, ...)
fits <- list(
  smooth = g(y ~ s(x) + s(z)), smooth_ml = g(y ~ s(x) + s(z), method = "ML"),
  three = g(y ~ s(x) + s(z) + s(w)), te = g(y ~ te(x, z) + s(w)), by = g(y ~ o + s(x, by = o)),
  re = g(y ~ s(x) + s(g, bs = "re")), re_ml = g(y ~ s(x) + s(g, bs = "re"), method = "ML"),
  re_slope = g(y ~ x + s(g, bs = "re") + s(g, x, bs = "re")),
  re_two = g(y ~ s(x) + s(area, bs = "re") + s(o, bs = "re")),
  re_cells = g(y ~ s(z) + s(g, o, bs = "re")),
  re_null = g(w ~ s(g, bs = "re") + s(x)),
  ts = g(y ~ s(x, bs = "ts") + s(w, bs = "ts")), fs = g(y ~ s(g, x, bs = "fs", k = 5, m = 1)),
  mrf = g(y ~ s(x) + s(area, bs = "mrf", xt = list(nb = near))),
  select = g(y ~ s(x) + s(z) + s(w), select = TRUE),
  fixed = g(y ~ s(x, sp = 2) + s(z)),
  poisson = g(count ~ s(x) + s(g, bs = "re"), poisson()),
  poisson_cells = g(count ~ s(x) + s(g, o, bs = "re"), poisson()),
  poisson_smooth = g(count ~ s(x) + s(z), poisson()),
  binary = g(binary ~ s(x) + s(g, bs = "re"), binomial()),
  gamma = g(positive ~ s(x) + s(z), Gamma(link = log)),
  gamma_re = g(positive ~ s(x) + s(g, bs = "re"), Gamma(link = log)),
  scale = g(list(y ~ s(x) + s(z), ~ s(w)), gaulss(b = 0)),
  scale_re = g(list(spread ~ x + s(o, bs = "re"), ~ s(g, bs = "re")), gaulss(b = 0)),
  sleep = g(Reaction ~ Days + s(Subject, bs = "re") + s(Subject, Days, bs = "re"), data = sleep),
  sleep_int = g(Reaction ~ Days + s(Subject, bs = "re"), data = sleep))
report <- function(b) {
  s <- summary(b)$s.table; labels <- rownames(s); rownames(s) <- NULL
  vc <- NULL
  invisible(capture.output(v <- tryCatch(gam.vcomp(b), error = function(e) NULL)))
  if (is.list(v)) v <- v$vc
  if (is.matrix(v)) { vc <- v; dimnames(vc) <- NULL }
  data <- if ("Reaction" %in% all.vars(b$formula)) sleep else d
  both <- function(unconditional) {
    p <- predict(b, data[1:10, ], se.fit = TRUE, unconditional = unconditional)$se.fit
    if (is.matrix(p)) as.numeric(p[, 1]) else as.numeric(p) }
  list(labels = labels, table = s, logLik = as.numeric(logLik(b)), df = attr(logLik(b), "df"),
    AIC = AIC(b), edf = sum(b$edf), edf1 = sum(b$edf1), edf2 = sum(b$edf2), sp = as.numeric(b$sp),
    vcomp = vc, se = both(FALSE), se_corrected = both(TRUE))
}
compare <- function(test, ...) {
  a <- as.data.frame(anova(..., test = test)); names(a) <- NULL
  lapply(seq_len(nrow(a)), function(i) as.numeric(a[i, ]))
}
n <- nb()
pairs <- list(
  gaussian_F = compare("F", g(y ~ s(x)), fits$smooth, g(y ~ s(x) + s(z) + g)),
  gaussian_chisq = compare("Chisq", g(y ~ s(x)), g(y ~ s(x) + g)),
  gaussian_down = compare("F", g(y ~ s(x) + g), g(y ~ s(x))),
  linear_F = compare("F", g(y ~ x), g(y ~ x + g)),
  poisson_chisq = compare("Chisq", g(count ~ s(x), poisson()), fits$poisson_smooth, g(count ~ s(x) + s(z) + g, poisson())),
  gamma_F = compare("F", g(positive ~ s(x), Gamma(link = log)), g(positive ~ s(x) + g, Gamma(link = log))),
  scale_chisq = compare("Chisq", g(list(y ~ s(x), ~ 1), gaulss(b = 0)), g(list(y ~ s(x) + g, ~ s(w)), gaulss(b = 0))))
pairs$binomial_chisq <- compare("Chisq", g(cbind(pmin(count, 12), 12 - pmin(count, 12)) ~ s(x), binomial()),
  g(cbind(pmin(count, 12), 12 - pmin(count, 12)) ~ s(x) + g, binomial()))
results <- list(origin = "data/reference/inference.R, R 4.2.2, mgcv 1.8-41", models = lapply(fits, report), comparisons = pairs)
writeLines(toJSON(results, auto_unbox = TRUE, digits = 10, null = "null", na = "null"), "inference.json")
