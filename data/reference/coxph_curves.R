# Curves with errors, residuals and tests of proportional hazards: survival::survfit.coxph,
# residuals.coxph, cox.zph and survSplit on lung.csv, veteran.csv and heart.csv.
# Run here: Rscript coxph_curves.R writes coxph_curves.json.
library(survival)
library(jsonlite)
lung <- read.csv("lung.csv")
lung$w <- 1 + seq_len(nrow(lung)) %% 3
veteran <- read.csv("veteran.csv")
veteran$celltype <- relevel(factor(veteran$celltype), "squamous")
heart <- read.csv("heart.csv")
control <- coxph.control(eps = 1e-14, iter.max = 100)
lung_formula <- Surv(time, status) ~ age + sex + ecog
new <- data.frame(age = c(60, 72), sex = c(1, 2), ecog = c(1, 0))
at <- c(100, 300, 600, 900)

curves <- function(m, new, at) {
  curve <- survfit(m, newdata = new, conf.type = "log-log")
  s <- summary(curve, at)
  list(new = new, at = at, survival = t(s$surv), se = t(s$std.err), lower = t(s$lower), upper = t(s$upper),
       cumhazard = t(s$cumhaz), median = unname(quantile(curve, 0.5)$quantile),
       median_lower = unname(quantile(curve, 0.5)$lower), median_upper = unname(quantile(curve, 0.5)$upper))
}
zph <- function(m, ...) {
  found <- cox.zph(m, ...)$table
  list(term = rownames(found), chisq = unname(found[, 1]), df = unname(found[, 2]), p = unname(found[, 3]))
}
m <- coxph(lung_formula, lung, control = control)
strata <- coxph(Surv(time, status) ~ karno + age + strata(celltype), veteran, control = control)
stratum <- survfit(strata, newdata = data.frame(karno = 60, age = 58, celltype = "smallcell"))
h <- coxph(Surv(start, stop, event) ~ age + surgery, heart, control = control)
v <- coxph(Surv(time, status) ~ trt + celltype + karno, veteran, control = control)
split <- survSplit(Surv(time, status) ~ ., veteran, cut = c(90, 180), episode = "period")
varying <- coxph(Surv(tstart, time, status) ~ trt + prior + karno + karno:factor(period), split, control = control)

results <- list(
  curves = list(
    lung = curves(m, new, at),
    lung_breslow = curves(coxph(lung_formula, lung, ties = "breslow", control = control), new, at),
    lung_weighted = curves(coxph(lung_formula, lung, weights = w, robust = FALSE, control = control), new, at),
    heart = curves(h, data.frame(age = c(0, -10), surgery = c(0, 1)), c(30, 200, 800))
  ),
  strata = list(at = c(30, 100), survival = summary(stratum, c(30, 100))$surv, se = summary(stratum, c(30, 100))$std.err),
  residuals = list(
    lung_martingale = unname(residuals(m, "martingale")), lung_deviance = unname(residuals(m, "deviance")),
    lung_schoenfeld = unname(residuals(m, "schoenfeld")), lung_scaled = unname(residuals(m, "scaledsch")),
    lung_score = unname(residuals(m, "score")),
    lung_rows = as.integer(names(residuals(m, "martingale"))),
    heart_martingale = unname(residuals(h, "martingale"))
  ),
  zph = list(
    km = zph(v), identity = zph(v, "identity"), rank = zph(v, "rank"), log = zph(v, log),
    strata = zph(strata), weighted = zph(coxph(lung_formula, lung, weights = w, robust = FALSE, control = control)), heart = zph(h)
  ),
  split = list(rows = nrow(split), coef = coef(varying), se = sqrt(diag(vcov(varying))), logLik = varying$loglik[2])
)
write(toJSON(results, digits = 15, auto_unbox = TRUE, pretty = TRUE), "coxph_curves.json")
