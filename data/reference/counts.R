# Fits of MASS and stats that the other tables of counts do not have; writes counts_glm.json.
# Data: MASS::quine (146 pupils); columns binom10, x1, x2 of counts.csv.
suppressMessages(library(MASS))
library(jsonlite)
tight <- glm.control(epsilon = 1e-14, maxit = 100)
table <- function(m) {
  s <- coef(summary(m))
  lapply(split(s[, 1:2], rownames(s)), function(r) list(estimate = r[1], se = r[2]))
}
nb <- glm.nb(Days ~ Eth + Sex + Age + Lrn, quine, control = tight)
out <- list(quine = list(logLik = as.numeric(logLik(nb)), theta = nb$theta, se_theta = nb$SE.theta,
                         coefficients = table(nb)))
d <- read.csv("counts.csv")
for (l in c("logit", "probit", "cloglog", "cauchit")) {
  g <- glm(cbind(binom10, 10 - binom10) ~ x1 + x2, binomial(l), d, control = tight)
  out[[l]] <- list(logLik = as.numeric(logLik(g)), deviance = deviance(g),
                   null_deviance = g$null.deviance, coefficients = table(g))
}
write(toJSON(out, auto_unbox = TRUE, digits = 14), "counts_glm.json")
write.csv(quine, "quine.csv", row.names = FALSE, quote = FALSE)
