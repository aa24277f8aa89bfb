# Weighted and stratified proportional hazards: survival::coxph on lung.csv and heart.csv.
# Appends to coxph.json, whose other cases are from the shared oracles (same versions).
library(survival)
library(jsonlite)
found <- function(m) list(coef = unname(coef(m)), se = unname(sqrt(diag(vcov(m)))), logLik = m$loglik[2])
lung <- read.csv("lung.csv")
lung$w <- 1 + seq_len(nrow(lung)) %% 3
heart <- read.csv("heart.csv")
heart$w <- 0.5 + (seq_len(nrow(heart)) %% 4)
control <- coxph.control(eps = 1e-14, iter.max = 100)
robust <- FALSE
curve <- survfit(coxph(Surv(time, status) ~ age + sex, lung), data.frame(age = 60, sex = 1))
results <- list(
  lung_weighted = found(coxph(Surv(time, status) ~ age + sex + ecog, lung, weights = w, robust = robust, control = control)),
  lung_weighted_breslow = found(coxph(Surv(time, status) ~ age + sex + ecog, lung, weights = w, robust = robust, ties = "breslow", control = control)),
  lung_strata = found(coxph(Surv(time, status) ~ age + ecog + strata(sex), lung, control = control)),
  heart_weighted = found(coxph(Surv(start, stop, event) ~ age + surgery, heart, weights = w, robust = robust, control = control)),
  lung_curve = list(time = c(100, 300, 600, 900), survival = summary(curve, c(100, 300, 600, 900))$surv)
)
m <- coxph(Surv(time, status) ~ age + sex, lung)
lung$lp <- predict(m)
km <- summary(survfit(Surv(time, status) ~ 1, lung), c(100, 400, 800))
concord <- function(...) unname(concordance(Surv(time, status) ~ lp, lung, reverse = TRUE, ...)$concordance)
metrics <- list(
  times = c(100, 400, 800), km = km$surv, km_se = km$std.err, harrell = concord(),
  uno = concord(timewt = "n/G2"), uno500 = concord(timewt = "n/G2", ymax = 500), lp = coef(m)
)
old <- fromJSON("coxph.json", simplifyVector = FALSE)
old$survival <- results
old$metrics <- metrics
write(toJSON(old, digits = 15, auto_unbox = TRUE, pretty = TRUE), "coxph.json")
